package asyncapi

import "ticketing.com/auth/infra/schema"

// These types are the parts of an AsyncAPI 3.0 document that the reference uses. The order of the
// fields is the order in the file. See https://www.asyncapi.com/docs/reference/specification/v3.0.0.
type (
	document struct {
		AsyncAPI    string             `yaml:"asyncapi"`
		Info        schema.Info        `yaml:"info"`
		ContentType string             `yaml:"defaultContentType"`
		Servers     mapping[server]    `yaml:"servers"`
		Channels    mapping[channel]   `yaml:"channels"`
		Operations  mapping[operation] `yaml:"operations"`
		Components  components         `yaml:"components"`
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
	mapping[T any] = schema.List[T]
)

var post = bindings{httpBinding{"POST", "0.3.0"}}
