package endpoint_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

// on declares a receiver of events with a handler, and returns the panic of On.
func on[In, Out any](r endpoint.Receiver) (problem string) {
	defer func() {
		if p := recover(); p != nil {
			problem = p.(string)
		}
	}()
	if r.Handler == nil {
		r.Handler = func(*config.Config, map[string][]*endpoint.Bound) http.Handler { return nil }
	}
	endpoint.On(r, func(*config.Config) struct{} { return struct{}{} },
		func(struct{}, context.Context, In) (out Out, err error) { return out, nil })
	return ""
}

// sold is a payload that another package publishes.
type sold struct {
	Ticket string    `json:"ticket"`
	Buyer  *string   `json:"buyer,omitzero"`
	Note   string    `json:"note,omitempty"`
	Price  int       `json:"price"`
	At     time.Time `json:"at"`
	Gift   bool      `json:"gift"`
	Seats  []place   `json:"seats"`
	Venue  hall      `json:"venue"`
	Tags   []string  `json:"tags"`
}

type place struct {
	Row    int    `json:"row"`
	Number string `json:"number"`
}

type hall struct {
	City string `json:"city"`
	Hall string `json:"hall,omitempty"`
}

var soldV1 = event.Define[sold]("sold.v1", "/api/tickets", "A ticket was sold.")

func taking(types ...*event.Type) endpoint.Receiver { return endpoint.Receiver{Types: types} }

// An input reads some members of the payload, each in the form that the payload has it.
func TestOn_AcceptsPartsOfThePayload(t *testing.T) {
	type some struct {
		endpoint.Keyed
		Ticket string   `json:"ticket"`
		Buyer  *string  `json:"buyer"`
		Note   *string  `json:"note"`
		Price  float64  `json:"price"`
		Gift   *bool    `json:"gift"`
		At     string   `json:"at"`
		Tags   []string `json:"tags" max:"9"`
		Seats  []struct {
			Row int `json:"row"`
		} `json:"seats" max:"9"`
		Venue struct {
			Hall *string `json:"hall"`
		} `json:"venue"`
	}
	done := event.Define[place]("done.v1", "/api/seats", "Done.")
	refused := event.Define[apierror.Errors]("refused.v1", "/api/seats", "Refused.")
	other := event.Untyped("dev.knative.sources.ping", "A ping.")
	for name, problem := range map[string]string{
		"some members":                  on[some, endpoint.None](taking(soldV1)),
		"no member":                     on[endpoint.None, endpoint.None](taking(soldV1)),
		"a type without a payload":      on[some, endpoint.None](taking(soldV1, other)),
		"the payload":                   on[place, endpoint.None](taking(event.Define[place]("seat.v1", "", ""))),
		"a reply and a refusal":         on[some, place](endpoint.Receiver{Types: []*event.Type{soldV1}, Reply: done, Refusal: refused}),
		"the output None without reply": on[some, endpoint.None](endpoint.Receiver{Types: []*event.Type{soldV1}, Refusal: refused}),
	} {
		if problem != "" {
			t.Errorf("%s: got the panic %q, want none", name, problem)
		}
	}
}

func TestOn_RejectsReceiverThatDoesNotFit(t *testing.T) {
	seatV1 := event.Define[place]("seat.v1", "/api/seats", "")
	other := event.Untyped("other", "")
	replying := func(reply, refusal *event.Type) endpoint.Receiver {
		return endpoint.Receiver{Types: []*event.Type{other}, Reply: reply, Refusal: refusal}
	}
	for want, problem := range map[string]string{
		"receiver of sold.v1: an event has no identity, path, query, Agent or Language": on[struct{ Owner }, endpoint.None](taking(soldV1)),
		"it has no Types":        on[endpoint.None, endpoint.None](taking()),
		"it lists sold.v1 twice": on[endpoint.None, endpoint.None](taking(soldV1, seatV1, soldV1)),
		"and endpoint_test.sold, the data of sold.v1: owner: the data has no such member": on[struct {
			Owner string `json:"owner"`
		}, endpoint.None](taking(soldV1)),
		"Ticket: the data has no such member": on[struct {
			T string `json:"Ticket"`
		}, endpoint.None](taking(soldV1)),
		"buyer: the data may omit it: use a pointer": on[struct {
			Buyer string `json:"buyer"`
		}, endpoint.None](taking(soldV1)),
		"note: the data may omit it": on[struct {
			Note string `json:"note"`
		}, endpoint.None](taking(soldV1)),
		"ticket: it must be a whole number, and the data has the type string": on[struct {
			Ticket int `json:"ticket"`
		}, endpoint.None](taking(soldV1)),
		"price: it must be a string, and the data has the type int": on[struct {
			Price string `json:"price"`
		}, endpoint.None](taking(soldV1)),
		"ticket: it must be a time": on[struct {
			Ticket time.Time `json:"ticket"`
		}, endpoint.None](taking(soldV1)),
		"seats: number: it must be true or false": on[struct {
			Seats []struct {
				Number bool `json:"number"`
			} `json:"seats" max:"9"`
		}, endpoint.None](taking(soldV1)),
		"tags: it must be an object": on[struct {
			Tags []place `json:"tags" max:"9"`
		}, endpoint.None](taking(soldV1)),
		"venue: hall: the data may omit it": on[struct {
			Venue struct {
				Hall string `json:"hall"`
			} `json:"venue"`
		}, endpoint.None](taking(soldV1)),
		"the data of seat.v1: ticket: the data has no such member": on[struct {
			Ticket string `json:"ticket"`
		}, endpoint.None](taking(soldV1, seatV1)),
		"its output endpoint_test.place is never sent: set Reply":                                       on[hall, place](taking(other)),
		"its Reply seat.v1 has the data endpoint_test.place, and the receiver sends endpoint_test.sold": on[hall, sold](replying(seatV1, nil)),
		"its Reply ping has the data <nil>, and the receiver sends endpoint_test.place":                 on[hall, place](replying(event.Untyped("ping", ""), nil)),
		"its Refusal seat.v1 has the data endpoint_test.place, and the receiver sends apierror.Errors":  on[hall, place](replying(seatV1, seatV1)),
		"its Reply silent.v1 has no source":                                                             on[hall, place](replying(event.Define[place]("silent.v1", "", ""), nil)),
		"its Refusal refused.v1 has no source":                                                          on[hall, place](replying(seatV1, event.Define[apierror.Errors]("refused.v1", "", ""))),
	} {
		if !strings.Contains(problem, want) {
			t.Errorf("got the panic %q, want one with %q", problem, want)
		}
	}
}

// Package endpoint does not read events, so a receiver without the handler of package receiver
// would never receive one.
func TestOn_RejectsReceiverWithoutHandler(t *testing.T) {
	defer func() {
		if p, _ := recover().(string); p != "receiver of sold.v1: nothing reads its events: declare it with receiver.On" {
			t.Errorf("got the panic %q", p)
		}
	}()
	endpoint.On(taking(soldV1), func(*config.Config) struct{} { return struct{}{} },
		func(struct{}, context.Context, endpoint.None) (endpoint.None, error) { return endpoint.None{}, nil })
}
