package otlp

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

var sampled = tracetest.SpanStub{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceFlags: trace.FlagsSampled})}.Snapshot()

func end(b *batcher, spans int) {
	for range spans {
		b.OnEnd(sampled)
	}
}

func TestBatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		b := newBatcher(func(_ context.Context, batch []sdk.ReadOnlySpan) error {
			sizes = append(sizes, len(batch))
			return nil
		})
		expect := func(what string, want ...int) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(sizes, want) {
				t.Errorf("%s: got batches of %v, want %v", what, sizes, want)
			}
			sizes = nil
		}
		end(b, batchSize-1)
		b.OnEnd(tracetest.SpanStub{}.Snapshot())
		expect("before the end of the interval")
		b.OnEnd(sampled)
		expect("a full batch", batchSize)
		end(b, 3)
		time.Sleep(batchInterval)
		expect("the end of the interval", 3)
		end(b, 2)
		b.ForceFlush(t.Context())
		expect("a flush", 2)
		end(b, 1)
		b.Shutdown(t.Context())
		end(b, 1)
		time.Sleep(batchInterval)
		expect("the shutdown", 1)
	})
}

// While an export hangs, a request is not delayed, a flush ends with its context, and the queue is
// bounded. The spans of a failed export are lost, and no others.
func TestBatcher_ExportHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exported, hang := 0, make(chan struct{})
		b := newBatcher(func(_ context.Context, batch []sdk.ReadOnlySpan) error {
			if exported += len(batch); exported == batchSize {
				<-hang
				return errors.New("the collector is down")
			}
			return nil
		})
		end(b, batchSize)
		synctest.Wait()
		end(b, maxQueue+7)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.ForceFlush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the flush returned %v, want the end of its context", err)
		}
		if _, dropped := b.next(); dropped != 7 {
			t.Errorf("%d spans were dropped, want 7", dropped)
		}
		close(hang)
		b.Shutdown(t.Context())
		if want := maxQueue; exported != want { // next has removed a batch
			t.Errorf("%d spans were exported, want %d", exported, want)
		}
	})
}
