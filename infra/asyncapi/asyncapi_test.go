package asyncapi_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/infra/asyncapi"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

type sold struct {
	Ticket string  `json:"ticket"`
	Buyer  *string `json:"buyer,omitzero"`
}

var (
	soldV1  = event.Define[sold]("com.example.sold.v1", "/api/tickets", "A ticket was sold.")
	buyV1   = event.Define[sold]("com.example.buy.v1", "", "A service buys a ticket.")
	refused = event.Define[apierror.Errors]("com.example.refused.v1", "/api/tickets", "A sale was refused.")
	ping    = event.Untyped("dev.knative.sources.ping", "A ping.")
	tickets = endpoint.Function{Name: "tickets", Needs: []endpoint.Need{{Publishes: []*event.Type{soldV1}}}, Receivers: []endpoint.Receiver{
		{Types: []*event.Type{buyV1}, Reply: soldV1, Refusal: refused, Summary: "Sell a ticket."},
		{Types: []*event.Type{ping, buyV1}, Summary: "Clean up."}}}
	mail = endpoint.Function{Name: "mail", Receivers: []endpoint.Receiver{{Types: []*event.Type{soldV1}, Summary: "Send a mail."}}}
)

// Two functions take one type, a function has several receivers, and one takes what another
// publishes.
func TestDocument(t *testing.T) {
	got, err := asyncapi.Document([]endpoint.Function{tickets, mail})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  tickets-receive:\n    action: receive\n    channel:\n      $ref: '#/channels/tickets'\n    title: Taken by tickets\n    summary: Sell a ticket.\n",
		"    messages:\n      - $ref: '#/channels/tickets/messages/com.example.buy.v1'\n    reply:\n      channel:\n        $ref: '#/channels/tickets'\n" +
			"      messages:\n        - $ref: '#/channels/tickets/messages/com.example.sold.v1'\n        - $ref: '#/channels/tickets/messages/com.example.refused.v1'\n",
		"  tickets-receive-2:\n",
		"    messages:\n      - $ref: '#/channels/tickets/messages/dev.knative.sources.ping'\n      - $ref: '#/channels/tickets/messages/com.example.buy.v1'\n",
		"  mail-receive:\n",
		"      - $ref: '#/channels/mail/messages/com.example.sold.v1'\n",
		"  tickets-publish:\n    action: send\n    channel:\n      $ref: '#/channels/sink'\n",
		"          ce-source:\n            type: string\n            const: /api/tickets\n",
		"          ce-source:\n            type: string\n            description: The sender.\n",
		"    sold:\n      type: object\n      required: [ticket]\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the document does not contain\n%s\n%s", want, got)
		}
	}
	for once, n := range map[string]int{"\n    com.example.buy.v1:\n": 1, "\n    com.example.sold.v1:\n": 1, "\n    sold:\n": 1, "payload:\n": 3} {
		if have := strings.Count(string(got), once); have != n {
			t.Errorf("got %d times %q, want %d", have, once, n)
		}
	}
	if strings.Contains(string(got), "mail-publish") {
		t.Error("got an operation with which mail sends events, want none")
	}
}

func TestDocument_InvalidPayload(t *testing.T) {
	bad := event.Define[struct {
		C chan int `json:"c"`
	}]("com.example.bad.v1", "/api/tickets", "Bad.")
	f := endpoint.Function{Name: "bad", Needs: []endpoint.Need{{Publishes: []*event.Type{bad}}}}
	_, document := asyncapi.Document([]endpoint.Function{f})
	_, schema := asyncapi.Schema(bad)
	for _, err := range []error{document, schema} {
		if err == nil || !strings.HasPrefix(err.Error(), "com.example.bad.v1: ") {
			t.Errorf("got the error %v, want one that names the type", err)
		}
	}
}

func TestTables(t *testing.T) {
	functions := []endpoint.Function{tickets, mail}
	published, err := asyncapi.Published(functions)
	if want := "| type | data | meaning | published by |\n|---|---|---|---|\n| `com.example.sold.v1` | `{ticket, buyer?}` | A ticket was sold. | tickets |\n"; err != nil || string(published) != want {
		t.Errorf("got %s and the error %v, want %s", published, err, want)
	}
	accepted, err := asyncapi.Accepted(functions)
	for _, want := range []string{
		"| tickets | `com.example.buy.v1` | `{ticket, buyer?}` | `com.example.sold.v1` `{ticket, buyer?}` or `com.example.refused.v1` `{errors}` |\n",
		"| tickets | `dev.knative.sources.ping` | none | none |\n",
		"| mail | `com.example.sold.v1` | `{ticket, buyer?}` | none |\n",
	} {
		if err != nil || !strings.Contains(string(accepted), want) {
			t.Errorf("got %s and the error %v, want %s", accepted, err, want)
		}
	}
}

// The generator does not delete the schema of a type that was removed.
func TestSchemas_NoneIsLeft(t *testing.T) {
	expected := map[string]bool{}
	for _, of := range asyncapi.Types(catalog.Functions()) {
		expected[filepath.Base(event.SchemaPath(of.Name))] = true
	}
	files, err := os.ReadDir("schemas")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !expected[f.Name()] {
			t.Errorf("schemas/%s is the schema of no type in the catalog: delete it", f.Name())
		}
	}
}
