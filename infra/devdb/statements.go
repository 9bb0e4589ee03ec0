package main

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// run returns the reply to a command. It executes the statements of an update one by
// one, because of two defects of FerretDB. FerretDB reports the first of several errors
// at index 0. Its index for an upserted document counts only inserted documents. The
// caller holds all slots, so no other command runs between the statements.
func (p *proxy) run(request message, c command, send func(message) (message, error)) (message, error) {
	i := slices.IndexFunc(c.sections, func(s section) bool { return s.name == "updates" })
	if c.name != "update" || i < 0 || len(c.sections[i].documents) < 2 {
		return p.runStatement(request, c, send)
	}
	ordered, is := c.body().Lookup("ordered").BooleanOK()
	ordered = ordered || !is
	var total updateReply
	for index, statement := range c.sections[i].documents {
		single := command{c.name, slices.Clone(c.sections)}
		single.sections[i].documents = []bson.Raw{statement}
		reply, err := p.runStatement(request.with(single.sections), single, send)
		if err != nil {
			return nil, err
		}
		var part updateReply
		if bson.Unmarshal(reply.document(), &part) != nil || part.OK != 1 {
			return reply, nil // FerretDB rejected the command
		}
		total.add(part, int32(index))
		if ordered && len(part.Errors) > 0 {
			break
		}
	}
	body, err := bson.Marshal(total)
	if err != nil {
		return nil, err
	}
	return newCommand(body).asReplyTo(request), nil
}

// runStatement returns the reply to a command with one statement.
func (p *proxy) runStatement(request message, c command, send func(message) (message, error)) (message, error) {
	narrowed, err := p.narrow(request, c, send)
	if err != nil {
		return nil, err
	}
	return send(narrowed)
}

// updateReply is the reply to an update.
type updateReply struct {
	N        int32    `bson:"n"`
	Upserted []bson.D `bson:"upserted,omitempty"`
	Modified int32    `bson:"nModified"`
	Errors   []bson.D `bson:"writeErrors,omitempty"`
	OK       float64  `bson:"ok"`
}

// add adds the reply to the statement at index.
func (u *updateReply) add(part updateReply, index int32) {
	u.N, u.Modified, u.OK = u.N+part.N, u.Modified+part.Modified, part.OK
	for _, d := range append(part.Upserted, part.Errors...) {
		for i := range d {
			if d[i].Key == "index" {
				d[i].Value = index
			}
		}
	}
	u.Upserted, u.Errors = append(u.Upserted, part.Upserted...), append(u.Errors, part.Errors...)
}
