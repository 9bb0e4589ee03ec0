package endpoint

import (
	"context"
	"sync"
)

// A Later starts a function after the response to a request was written. It returns false, and
// starts nothing, if the process already runs too many such functions.
type Later func(func()) bool

type laterKey struct{}

// WithLater returns a context of a request with its Later. A transport sets it if the process
// continues to run after a response, and if its shutdown waits for the functions.
func WithLater(ctx context.Context, l Later) context.Context {
	return context.WithValue(ctx, laterKey{}, l)
}

// LaterFrom returns the Later of a request, or nil. If it is nil, the platform may freeze the
// process after the response, so all work must precede the response.
func LaterFrom(ctx context.Context) Later {
	l, _ := ctx.Value(laterKey{}).(Later)
	return l
}

// Run starts work after the response. Its context does not end with the request. A Later of that
// context starts its function at once, and Run waits for it.
func (l Later) Run(ctx context.Context, work func(context.Context)) bool {
	return l(func() {
		var nested sync.WaitGroup
		defer nested.Wait()
		work(WithLater(context.WithoutCancel(ctx), func(f func()) bool {
			nested.Go(f)
			return true
		}))
	})
}
