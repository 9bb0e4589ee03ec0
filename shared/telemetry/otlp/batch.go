package otlp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
)

// The defaults of the SDK (OpenTelemetry, "Batching processor").
const (
	batchSize     = 512
	maxQueue      = 2048
	batchInterval = 5 * time.Second
)

// A batcher exports spans in batches: the first 512, or those of 5 s. It implements trace.SpanProcessor.
//
// The batcher of the SDK hands each span to a goroutine. The wake-ups of that goroutine cost a request
// of currentuser, with three spans, 2 % of its time.
type batcher struct {
	export func(context.Context, []trace.ReadOnlySpan) error
	free   chan struct{} // has a value while no export runs

	mu      sync.Mutex
	spans   []trace.ReadOnlySpan
	armed   bool // the timer runs
	timer   *time.Timer
	dropped int
	closed  bool
}

func newBatcher(export func(context.Context, []trace.ReadOnlySpan) error) *batcher {
	b := &batcher{export: export, free: make(chan struct{}, 1)}
	b.free <- struct{}{}
	return b
}

// OnStart implements trace.SpanProcessor.
func (*batcher) OnStart(context.Context, trace.ReadWriteSpan) {}

// OnEnd implements trace.SpanProcessor.
func (b *batcher) OnEnd(s trace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	if len(b.spans) == maxQueue {
		b.dropped++
		return
	}
	b.spans = append(b.spans, s)
	if !b.armed {
		b.armed, b.timer = true, time.AfterFunc(batchInterval, b.flush)
	}
	if len(b.spans) == batchSize {
		b.timer.Reset(0)
	}
}

func (b *batcher) flush() {
	b.mu.Lock()
	b.armed = false
	b.mu.Unlock()
	if err := b.ForceFlush(context.Background()); err != nil {
		otel.Handle(err)
	}
}

// ForceFlush implements trace.SpanProcessor.
func (b *batcher) ForceFlush(ctx context.Context) (err error) {
	select {
	case <-b.free:
		defer func() { b.free <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for ctx.Err() == nil {
		batch, dropped := b.next()
		if dropped > 0 {
			err = errors.Join(err, fmt.Errorf("%d spans were dropped: the queue was full", dropped))
		}
		if len(batch) == 0 {
			return err
		}
		err = errors.Join(err, b.export(ctx, batch))
	}
	return errors.Join(err, ctx.Err())
}

// next removes a batch from the queue.
func (b *batcher) next() (batch []trace.ReadOnlySpan, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch, dropped = b.spans[:min(len(b.spans), batchSize)], b.dropped
	b.spans, b.dropped = b.spans[len(batch):], 0
	return batch, dropped
}

// Shutdown implements trace.SpanProcessor.
func (b *batcher) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.ForceFlush(ctx)
}
