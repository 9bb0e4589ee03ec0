package main

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// run returns the reply to a command. It executes the statements of an update one by one,
// because FerretDB reports the first error of several at index 0, whatever its index is, and
// counts only inserted documents for the index of an upserted one. In a whole turn, no other
// command comes between.
func (g *gate) run(request message, c command, ask func(message) (message, error)) (message, error) {
	i := slices.IndexFunc(c.sections, func(s section) bool { return s.name == "updates" })
	if c.name != "update" || i < 0 || len(c.sections[i].documents) < 2 {
		return g.one(request, c, ask)
	}
	ordered, is := c.body().Lookup("ordered").BooleanOK()
	ordered = ordered || !is
	var total updated
	for index, statement := range c.sections[i].documents {
		single := command{c.name, slices.Clone(c.sections)}
		single.sections[i].documents = []bson.Raw{statement}
		reply, err := g.one(request.with(single.sections), single, ask)
		if err != nil {
			return nil, err
		}
		var part updated
		if bson.Unmarshal(reply.document(), &part) != nil || part.OK != 1 {
			return reply, nil // FerretDB does not accept the command
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
	return newCommand(body).answering(request), nil
}

// one returns the reply to a command with one statement.
func (g *gate) one(request message, c command, ask func(message) (message, error)) (message, error) {
	narrowed, err := g.narrow(request, c, ask)
	if err != nil {
		return nil, err
	}
	return ask(narrowed)
}

// updated is the reply to an update.
type updated struct {
	N        int32    `bson:"n"`
	Upserted []bson.D `bson:"upserted,omitempty"`
	Modified int32    `bson:"nModified"`
	Errors   []bson.D `bson:"writeErrors,omitempty"`
	OK       float64  `bson:"ok"`
}

// add adds the reply to the statement of an index.
func (u *updated) add(part updated, index int32) {
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
