package schema

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// A List is an ordered map.
type List[T any] []Entry[T]

// An Entry is a name with its value.
type Entry[T any] struct {
	Name  string
	Value T
}

// Pair returns an entry.
func Pair[T any](name string, value T) Entry[T] { return Entry[T]{name, value} }

// At returns the value of a name, or nil.
func (l List[T]) At(name string) *T {
	for i := range l {
		if l[i].Name == name {
			return &l[i].Value
		}
	}
	return nil
}

// Add adds a name with its value, unless the map has the name.
func (l *List[T]) Add(name string, value T) {
	if l.At(name) == nil {
		*l = append(*l, Pair(name, value))
	}
}

// MarshalYAML implements yaml.Marshaler.
func (l List[T]) MarshalYAML() (any, error) {
	mapping := &yaml.Node{Kind: yaml.MappingNode}
	for _, e := range l {
		var key, value yaml.Node
		key.SetString(e.Name)
		if err := value.Encode(e.Value); err != nil {
			return nil, err
		}
		mapping.Content = append(mapping.Content, &key, &value)
	}
	return mapping, nil
}

// MarshalJSONTo implements json.MarshalerTo.
func (l List[T]) MarshalJSONTo(to *jsontext.Encoder) error {
	if err := to.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, e := range l {
		if err := to.WriteToken(jsontext.String(e.Name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(to, e.Value); err != nil {
			return err
		}
	}
	return to.WriteToken(jsontext.EndObject)
}
