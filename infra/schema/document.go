package schema

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// Info is the part info of an OpenAPI and of an AsyncAPI document.
type Info struct {
	Title       string  `yaml:"title"`
	Version     string  `yaml:"version"`
	Description string  `yaml:"description"`
	License     License `yaml:"license"`
}

// A License is the license of an API. AsyncAPI has no identifier.
type License struct {
	Name       string `yaml:"name"`
	Identifier string `yaml:"identifier,omitempty"`
}

// Document returns a document in YAML, after a comment.
func Document(comment string, document any) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(comment)
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(document); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}
