// Package mail is the function that sends the mails to users. It has no public route: it receives
// the events with which other functions request a mail.
//
// The event has no secret. The function computes the token and the code from the event and its keys
// (package confirmation), so neither is stored, logged or published.
//
// A mail is sent once, as far as SMTP allows: see package journal. If the process is killed after
// the mail server has accepted a mail and before the journal records it, the mail is sent twice. So
// a process transfers only one mail at a time: a kill repeats at most one.
package mail

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/mail"
	"ticketing.com/auth/shared/mail/journal"
	"ticketing.com/auth/shared/mail/smtp"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/telemetry"
)

// Function receives the events that request a mail.
var Function = endpoint.Function{
	Name: "mail",
	Needs: []endpoint.Need{confirmation.Confirming, smtp.Sending, mail.Rendering, journal.Recording,
		{Settings: []string{"MAIL_NOTICES"}}},
	Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{
		Types:   []*event.Type{event.MailRequested},
		Reply:   event.MailFailed,
		Summary: "Send a mail to a user.",
		Budget:  budget,
		Outage:  time.Hour,
		Sink:    true,
	}, newHandler, (*sender).handle)},
}

const (
	// budget bounds an event. SMTP servers check a mail before they accept it, and greylisting ones
	// delay each step.
	budget = 20 * time.Second

	// sendTimeout bounds the SMTP commands. The rest of the budget is for the journal.
	sendTimeout = 15 * time.Second

	// heldRetry is the longest Retry-After for an event that another process has claimed.
	heldRetry = 5 * time.Second
)

// Request is the input: the data of event.MailRequested.
type Request struct {
	endpoint.Keyed
	UserID    string        `json:"userId"`
	To        string        `json:"to"`
	Locale    *string       `json:"locale,omitzero"`
	Template  event.Purpose `json:"template"`
	Purpose   event.Purpose `json:"purpose"`
	Nonce     *string       `json:"nonce,omitzero"`
	ExpiresAt *time.Time    `json:"expiresAt,omitzero"`
	At        time.Time     `json:"at"`
	Agent     *string       `json:"agent,omitzero"`
	Place     *string       `json:"place,omitzero"`
	DeletesAt *time.Time    `json:"deletesAt,omitzero"`
}

// Members implements reference.Described.
func (Request) Members() []reference.Member { return event.RequestedMail{}.Members() }

// Validate rejects a mail that no template fits.
func (r *Request) Validate(bad *apierror.Fields) {
	if r.UserID == "" {
		bad.Add("userId", "userId must not be empty.")
	}
	if !known(r.Template) {
		bad.Add("template", "template must be the name of a template.")
	}
	if !known(r.Purpose) || mail.HasLink(r.Purpose) != mail.HasLink(r.Template) {
		bad.Add("purpose", "purpose must be a purpose of the template.")
	}
	if mail.HasLink(r.Purpose) {
		if value(r.Nonce) == "" {
			bad.Add("nonce", "nonce is missing.")
		}
		if r.ExpiresAt == nil {
			bad.Add("expiresAt", "expiresAt is missing.")
		}
	}
}

func known(name event.Purpose) bool {
	for _, n := range mail.Names() {
		if n == name {
			return true
		}
	}
	return false
}

// value returns the value of an optional member, or its zero value.
func value[T any](member *T) (v T) {
	if member != nil {
		v = *member
	}
	return v
}

type sender struct {
	keys      *confirmation.Keys
	server    *smtp.Server
	templates *mail.Templates
	journal   *journal.Journal
	notices   notices
	now       func() time.Time
	log       *slog.Logger
	telemetry *telemetry.Telemetry

	transfer chan struct{} // holds one value while a mail is transferred and recorded
}

func newHandler(cfg *config.Config) *sender {
	return &sender{
		keys: confirmation.FromConfig(cfg), server: smtp.FromConfig(cfg), templates: mail.FromConfig(cfg),
		journal: journal.FromConfig(cfg), notices: noticesFromConfig(cfg), now: cfg.Now(), log: cfg.Log(), telemetry: telemetry.FromConfig(cfg),
		transfer: make(chan struct{}, 1),
	}
}

// handle sends the mail of an event, unless that is done, too late, switched off or over a limit. It
// returns the reply event for a mail that cannot be delivered.
//
// The error for a mail that can be delivered later is of kind Unavailable. The broker then delivers
// the event again.
func (s *sender) handle(ctx context.Context, in Request) (*event.FailedMail, error) {
	ctx, cancel := detach(ctx)
	defer cancel()
	log := s.log.With("user", in.UserID, "purpose", in.Purpose)
	switch {
	case !s.notices.include(in.Template):
		s.telemetry.Count(ctx, telemetry.Mails, "excluded")
		log.InfoContext(ctx, "mail not sent: MAIL_NOTICES excludes it")
		return nil, nil
	case !s.now().Before(in.deadline()):
		s.telemetry.Count(ctx, telemetry.Mails, "outdated")
		log.InfoContext(ctx, "mail not sent: it is out of date")
		return nil, nil
	}
	claim, result, err := s.journal.Claim(ctx, in.Key)
	if held, is := errors.AsType[*journal.Held](err); is {
		return nil, apierror.Busy(min(held.For, heldRetry), err)
	}
	if err != nil {
		return nil, err
	}
	if claim == nil {
		return in.reply(result), nil
	}
	result, err = s.send(ctx, claim, in)
	if result == "" {
		s.telemetry.Count(ctx, telemetry.Mails, "failed")
		s.finish(ctx, log, func(ctx context.Context) error { return claim.Release(ctx, isUnanswered(err)) })
		return nil, s.retry(ctx, log, err)
	}
	s.telemetry.Count(ctx, telemetry.Mails, string(result))
	if result != journal.Sent { // send has recorded it otherwise
		log.WarnContext(ctx, "mail not sent", "result", result, "error", err)
		s.finish(ctx, log, func(ctx context.Context) error { return claim.Finish(ctx, result) })
	}
	return in.reply(result), nil
}

// detach returns a context with the deadline of the event that a disconnected broker does not cancel.
// A broker may wait for a shorter time than a mail server needs. Each of its deliveries would
// otherwise interrupt a transfer that the mail server may have accepted.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, limited := ctx.Deadline()
	if !limited {
		deadline = time.Now().Add(budget)
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// deadline returns the time from which the mail is not sent: its token has expired, or the journal
// may have dropped the result of an earlier delivery.
func (r *Request) deadline() time.Time {
	oldest := r.At.Add(journal.Retention)
	if expires := value(r.ExpiresAt); r.ExpiresAt != nil && expires.Before(oldest) {
		return expires
	}
	return oldest
}

// reply returns the reply event for a result, or nil.
func (r *Request) reply(result journal.Result) *event.FailedMail {
	if result == journal.Refused || result == journal.Address {
		return &event.FailedMail{UserID: r.UserID, Purpose: r.Purpose, Reason: string(result)}
	}
	return nil
}

// send sends the mail of a claim and returns its result, and the error that caused it. An error
// without a result is not final. send records Sent itself, before it allows another transfer.
func (s *sender) send(ctx context.Context, claim *journal.Claim, in Request) (result journal.Result, err error) {
	to, err := email.Parse(in.To)
	if err != nil {
		return journal.Address, err // which does not contain the address
	}
	switch allowed, err := claim.Allow(ctx, in.Purpose, string(to)); {
	case err != nil:
		return "", err
	case !allowed:
		return journal.Limited, nil
	}
	message, err := s.message(in, string(to))
	if err != nil {
		return "", err
	}
	ctx, span := s.telemetry.Start(ctx, "send mail", trace.SpanKindClient)
	defer func() { telemetry.End(span, err != nil) }()
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	connection, err := s.server.Dial(sending)
	if err != nil {
		return outcome(err)
	}
	defer connection.Close()
	select {
	case s.transfer <- struct{}{}:
		defer func() { <-s.transfer }()
	case <-sending.Done():
		return "", apierror.Busy(time.Second, errors.New("the transfers of other mails take too long"))
	}
	log := s.log.With("user", in.UserID, "purpose", in.Purpose)
	switch err := connection.Send(message); {
	case err == nil:
		log.InfoContext(ctx, "mail sent", "language", message.Language)
	case isUnanswered(err) && claim.Unanswered+1 >= maxTransfers:
		log.WarnContext(ctx, "the mail counts as sent: the mail server has answered none of its transfers", "error", err)
	default:
		return outcome(err)
	}
	s.finish(ctx, log, func(ctx context.Context) error { return claim.Finish(ctx, journal.Sent) })
	return journal.Sent, nil
}

// message returns the mail with its token and its code.
func (s *sender) message(in Request, to string) (smtp.Message, error) {
	c := mail.Content{
		Template: in.Template, Locale: value(in.Locale), Purpose: in.Purpose, Expires: value(in.ExpiresAt),
		At: in.At, Agent: value(in.Agent), Place: value(in.Place), Deletes: value(in.DeletesAt),
	}
	if mail.HasLink(in.Purpose) {
		subject := confirmation.Subject{User: in.UserID, Purpose: in.Purpose, Nonce: value(in.Nonce), Expires: value(in.ExpiresAt), Email: to}
		c.Token = s.keys.Token(subject)
		if mail.HasCode(in.Template) {
			c.Code = s.keys.Code(subject)
		}
	}
	m, err := s.templates.Render(c)
	return smtp.Message{To: to, ID: in.Key, Date: in.At, Language: m.Language, Subject: m.Subject, Text: m.Text, HTML: m.HTML}, err
}

// outcome returns the result of a failure if it is final, and the failure.
func outcome(err error) (journal.Result, error) {
	if failed, is := errors.AsType[*smtp.Error](err); is {
		switch failed.Kind {
		case smtp.Address:
			return journal.Address, err
		case smtp.Refused:
			return journal.Refused, err
		}
	}
	return "", err
}

// maxTransfers bounds the transfers of a mail that the mail server does not answer. It may have accepted
// each of them, for example if it takes longer than the time limit.
const maxTransfers = 5

func isUnanswered(err error) bool {
	failed, is := errors.AsType[*smtp.Error](err)
	return is && failed.Kind == smtp.Unanswered
}

// retry returns the error with which the broker delivers the event again. It logs a failure that an
// operator must correct.
func (s *sender) retry(ctx context.Context, log *slog.Logger, err error) error {
	failed, is := errors.AsType[*smtp.Error](err)
	switch {
	case !is:
		return err
	case failed.Kind == smtp.Misconfigured:
		log.ErrorContext(ctx, "the mail server takes no mails: check SMTP_URL, SMTP_CA_FILE and MAIL_FROM", "error", failed)
	}
	return apierror.Unreachable(failed)
}

// finish writes to the journal. The end of the time limit and a disconnected broker do not cancel
// it. A mail that was sent must not be sent again because the database fails once.
func (s *sender) finish(ctx context.Context, log *slog.Logger, write func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget-sendTimeout)
	defer cancel()
	for {
		err := write(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			log.ErrorContext(ctx, "the result of a mail was not recorded: it may be sent again", "error", err)
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
