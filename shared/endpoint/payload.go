package endpoint

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
)

// names returns the types of a receiver, for an error.
func (r Receiver) names() string {
	var all []string
	for _, t := range r.Types {
		all = append(all, t.Name)
	}
	return strings.Join(all, ", ")
}

// check reports a receiver whose input, output and event types do not fit together.
func (r Receiver) check(p *plan) error {
	none := r.Out == reflect.TypeFor[None]()
	switch {
	case r.Handler == nil:
		return errors.New("nothing reads its events: declare it with receiver.On")
	case len(r.Types) == 0:
		return errors.New("it has no Types")
	case p.access != Public || p.path != nil || len(p.query) > 0 || p.headers:
		return errors.New("an event has no identity, path, query, Agent or Language")
	case r.Reply == nil && !none:
		return fmt.Errorf("its output %s is never sent: set Reply, or use the output None", r.Out)
	}
	for i, t := range r.Types {
		if slices.Contains(r.Types[:i], t) {
			return fmt.Errorf("it lists %s twice", t.Name)
		}
		if t.Data == nil || t.Data == r.In || p.body == nil {
			continue
		}
		if err := p.body.reads(t.Data); err != nil {
			return fmt.Errorf("the input %s and %s, the data of %s: %w", r.In, t.Data, t.Name, err)
		}
	}
	sent := r.Out
	if sent.Kind() == reflect.Pointer { // a reply that is sent only sometimes
		sent = sent.Elem()
	}
	if err := checkReply("Reply", r.Reply, sent); err != nil {
		return err
	}
	return checkReply("Refusal", r.Refusal, reflect.TypeFor[apierror.Errors]())
}

func checkReply(field string, t *event.Type, sent reflect.Type) error {
	switch {
	case t == nil:
	case t.Data != sent:
		return fmt.Errorf("its %s %s has the data %v, and the receiver sends %s", field, t.Name, t.Data, sent)
	case t.Source == "":
		return fmt.Errorf("its %s %s has no source", field, t.Name)
	}
	return nil
}

// reads reports a payload that the node may not be able to read: another kind of value, or a
// required member that the payload may omit. The payload may have more members.
func (n *node) reads(payload reflect.Type) error {
	k, ok := kindOf(payload)
	switch {
	case !ok || !n.readsKind(k):
		return fmt.Errorf("it must be %s, and the data has the type %s", n.words(), payload)
	case n.kind == kindPatch:
		return n.elem.reads(payload)
	case n.kind == kindArray:
		return n.elem.reads(payload.Elem())
	case n.kind == kindObject:
		for _, f := range n.fields {
			if err := f.reads(payload); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
	}
	return nil
}

// reads reports a payload without a member that the field can read.
func (f field) reads(payload reflect.Type) error {
	for member := range payload.Fields() {
		name, options, _ := strings.Cut(member.Tag.Get("json"), ",")
		if name != f.name {
			continue
		}
		t := member.Type
		optional := strings.Contains(options, "omit")
		if t.Kind() == reflect.Pointer {
			t, optional = t.Elem(), true
		}
		if optional && !f.optional {
			return errors.New("the data may omit it: use a pointer")
		}
		return f.node.reads(t)
	}
	return errors.New("the data has no such member")
}

// readsKind reports whether the node can read the values of a kind.
func (n *node) readsKind(k kind) bool {
	switch n.kind {
	case kindString:
		return k == kindString || k == kindText || k == kindTime
	case kindText:
		return k == kindText || k == kindString
	case kindNumber:
		return k == kindNumber || k == kindInteger
	case kindPatch:
		return n.elem.readsKind(k)
	}
	return n.kind == k
}
