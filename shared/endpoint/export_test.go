package endpoint

import (
	"bytes"
	"context"
	"reflect"
)

// Decode reads a body into the struct that in points to, as an endpoint does.
func Decode(body []byte, in any) error {
	p, err := newPlan(reflect.TypeOf(in).Elem())
	if err != nil {
		return err
	}
	return p.read(context.Background(), &Request{ContentType: []string{"application/json"}, Length: int64(len(body)), Body: bytes.NewReader(body)}, in)
}
