package asyncapi

import "ticketing.com/auth/infra/schema"

// These types are the parts of an AsyncAPI 3.0 document that the reference uses. The order of the
// fields is the order in the file. See https://www.asyncapi.com/docs/reference/specification/v3.0.0.
type (
	document struct {
		AsyncAPI    string             `yaml:"asyncapi"`
		Info        info               `yaml:"info"`
		ContentType string             `yaml:"defaultContentType"`
		Servers     mapping[server]    `yaml:"servers"`
		Channels    mapping[channel]   `yaml:"channels"`
		Operations  mapping[operation] `yaml:"operations"`
		Components  components         `yaml:"components"`
	}
	info struct {
		Title       string  `yaml:"title"`
		Version     string  `yaml:"version"`
		Description string  `yaml:"description"`
		License     license `yaml:"license"`
	}
	license struct {
		Name string `yaml:"name"`
	}
	server struct {
		Host        string                `yaml:"host"`
		Protocol    string                `yaml:"protocol"`
		Description string                `yaml:"description"`
		Variables   schema.List[variable] `yaml:"variables,omitempty"`
	}
	variable struct {
		Description string `yaml:"description"`
		Default     string `yaml:"default"`
	}
	channel struct {
		Address     *string      `yaml:"address"` // null: not known before the deployment
		Title       string       `yaml:"title"`
		Description string       `yaml:"description"`
		Servers     []ref        `yaml:"servers"`
		Messages    mapping[ref] `yaml:"messages"`
	}
	operation struct {
		Action   string   `yaml:"action"`
		Channel  ref      `yaml:"channel"`
		Title    string   `yaml:"title"`
		Summary  string   `yaml:"summary,omitempty"`
		Bindings bindings `yaml:"bindings"`
		Messages []ref    `yaml:"messages"`
		Reply    *reply   `yaml:"reply,omitempty"`
	}
	bindings struct {
		HTTP httpBinding `yaml:"http"`
	}
	httpBinding struct {
		Method  string `yaml:"method"`
		Version string `yaml:"bindingVersion"`
	}
	reply struct {
		Channel  ref   `yaml:"channel"`
		Messages []ref `yaml:"messages"`
	}
	components struct {
		Messages mapping[message]        `yaml:"messages"`
		Schemas  mapping[*schema.Schema] `yaml:"schemas"`
	}
	message struct {
		Name        string         `yaml:"name"`
		Title       string         `yaml:"title"`
		Summary     string         `yaml:"summary"`
		ContentType string         `yaml:"contentType,omitempty"`
		Headers     *schema.Schema `yaml:"headers"`
		Payload     *schema.Schema `yaml:"payload,omitempty"`
	}
	ref struct {
		To string `yaml:"$ref"`
	}
)

var post = bindings{httpBinding{"POST", "0.3.0"}}

// A mapping is an ordered map that add extends.
type mapping[T any] schema.List[T]

// MarshalYAML implements yaml.Marshaler.
func (m mapping[T]) MarshalYAML() (any, error) { return schema.List[T](m).MarshalYAML() }

// at returns the value of a name, or nil.
func (m mapping[T]) at(name string) *T {
	for i := range m {
		if m[i].Name == name {
			return &m[i].Value
		}
	}
	return nil
}

// add adds a name with its value, unless the mapping has the name.
func (m *mapping[T]) add(name string, value T) {
	if m.at(name) == nil {
		*m = append(*m, schema.Pair(name, value))
	}
}
