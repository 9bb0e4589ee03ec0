package openapi

import (
	"go.yaml.in/yaml/v3"

	"ticketing.com/auth/infra/schema"
)

// These types are the parts of an OpenAPI 3.1 document that the reference uses. The order of
// the fields is the order in the file. See https://spec.openapis.org/oas/v3.1.1.html.
type (
	document struct {
		OpenAPI    string         `yaml:"openapi"`
		Info       schema.Info    `yaml:"info"`
		Servers    []server       `yaml:"servers"`
		Tags       []tag          `yaml:"tags"`
		Paths      list[pathItem] `yaml:"paths"`
		Components components     `yaml:"components"`
	}
	server struct {
		URL         string `yaml:"url"`
		Description string `yaml:"description"`
	}
	tag struct {
		Name        string `yaml:"name"`
		Description string `yaml:"description"`
	}
	pathItem  = list[operation] // by method
	operation struct {
		OperationID string                `yaml:"operationId"`
		Tags        []string              `yaml:"tags,flow"`
		Summary     string                `yaml:"summary"`
		Security    []map[string][]string `yaml:"security,flow"`
		Parameters  []parameter           `yaml:"parameters,omitempty"`
		RequestBody *requestBody          `yaml:"requestBody,omitempty"`
		Responses   list[response]        `yaml:"responses"` // by status
	}
	parameter struct {
		Name        string         `yaml:"name"`
		In          string         `yaml:"in"`
		Required    bool           `yaml:"required,omitempty"`
		Description string         `yaml:"description,omitempty"`
		Schema      *schema.Schema `yaml:"schema"`
	}
	requestBody struct {
		Description string          `yaml:"description"`
		Required    bool            `yaml:"required"`
		Content     list[mediaType] `yaml:"content"`
	}
	response struct {
		Description string          `yaml:"description"`
		Headers     list[header]    `yaml:"headers"`
		Content     list[mediaType] `yaml:"content,omitempty"`
	}
	header struct {
		Ref         string         `yaml:"$ref,omitempty"`
		Description string         `yaml:"description,omitempty"`
		Required    bool           `yaml:"required,omitempty"`
		Schema      *schema.Schema `yaml:"schema,omitempty"`
	}
	mediaType struct {
		Schema   *schema.Schema `yaml:"schema"`
		Examples list[example]  `yaml:"examples,omitempty"`
	}
	example struct {
		Summary string            `yaml:"summary"`
		Request *request          `yaml:"x-request,omitempty"`
		Headers map[string]string `yaml:"x-headers,omitempty"`
		Value   raw               `yaml:"value"`
	}
	// A request holds the parts of a request that an example cannot express. The body is
	// the request example with the same name, unless Body is set.
	request struct {
		Method  string            `yaml:"method,omitempty"`
		Headers map[string]string `yaml:"headers,omitempty"`
		Body    string            `yaml:"body,omitempty"`
		Length  int               `yaml:"length,omitempty"` // white space pads the body to this number of bytes
	}
	components struct {
		Schemas         list[*schema.Schema] `yaml:"schemas"`
		Headers         list[header]         `yaml:"headers"`
		SecuritySchemes list[securityScheme] `yaml:"securitySchemes"`
	}
	securityScheme struct {
		Type         string `yaml:"type"`
		Scheme       string `yaml:"scheme"`
		BearerFormat string `yaml:"bearerFormat,omitempty"`
		Description  string `yaml:"description"`
	}
	list[T any] = schema.List[T]
)

// addPath appends the operations of a path. Several endpoints may have one path.
func addPath(paths *list[pathItem], path string, item pathItem) {
	paths.Add(path, nil)
	all := paths.At(path)
	*all = append(*all, item...)
}

// raw is JSON that is encoded as YAML.
type raw string

// MarshalYAML implements yaml.Marshaler. JSON is a subset of YAML (YAML 1.2 section 1.3).
func (r raw) MarshalYAML() (any, error) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(r), &n); err != nil {
		return nil, err
	}
	plain(&n)
	return n.Content[0], nil
}

func plain(n *yaml.Node) {
	n.Style = 0
	if len(n.Content) == 0 && n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle // {} and []
	}
	for _, c := range n.Content {
		plain(c)
	}
}
