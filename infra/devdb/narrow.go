package main

import (
	"bytes"
	"crypto/rand"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// filterOf names the member that holds the filter: of the body, or of the statements in
// a sequence.
var filterOf = map[string]struct{ sequence, member string }{
	"find": {"", "filter"}, "count": {"", "query"}, "findAndModify": {"", "query"},
	"update": {"updates", "q"}, "delete": {"deletes", "q"},
}

// noID is the _id of no document.
var noID = rand.Text()

// narrow returns a request that has the same effect and which FerretDB executes without
// reading the whole collection, where there is one: FerretDB uses an index only where a
// filter is {_id: x}. A filter that also has other conditions, or has a condition on a
// field with an index of its own, concerns one document at most. So narrow looks for
// that, asks FerretDB whether it matches the filter, and returns the request with the
// filter {_id: x}, or with one that nothing matches.
//
// The document must not change before the request is executed: see gate.
func (g *gate) narrow(request message, c command, ask func(message) (message, error)) (message, error) {
	where, is := filterOf[c.name]
	db, collection := c.namespace()
	if !is || collection == "" {
		return request, nil
	}
	sections := slices.Clone(c.sections)
	narrowed := false
	touched := map[string]bool{}
	for i, s := range sections {
		if s.name != where.sequence {
			continue
		}
		sections[i].documents = slices.Clone(s.documents)
		for j, statement := range s.documents {
			filter, is := statement.Lookup(where.member).DocumentOK()
			if !is || !narrowable(statement) {
				return request, nil
			}
			id, condition := g.candidate(db, collection, filter)
			if id == nil {
				return request, nil
			}
			if len(s.documents) > 1 { // each statement may change what the next one finds
				value, is := id.(bson.RawValue)
				if !is || touched[string(value.Value)] {
					return request, nil
				}
				touched[string(value.Value)] = true
			}
			if condition == "" {
				continue // it is narrow
			}
			upsert := upserts(statement)
			if upsert && condition != "_id" {
				return request, nil
			}
			if keys, _ := filter.Elements(); len(keys) > 1 || condition == "_id" {
				found, err := matches(db, collection, id, filter, ask)
				if err != nil || found == nil {
					return request, err
				}
				if !*found && upsert { // FerretDB inserts the document, or says that its _id is in use
					found, err = matches(db, collection, id, nil, ask)
					if err != nil || found == nil || *found {
						return request, err
					}
				} else if !*found {
					id = noID
				}
			}
			narrow, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
			if err != nil {
				return request, err
			}
			sections[i].documents[j] = replace(statement, where.member, narrow)
			narrowed = true
		}
	}
	if !narrowed {
		return request, nil
	}
	return request.with(sections), nil
}

// upserts reports whether a statement inserts a document if none matches.
func upserts(statement bson.Raw) bool {
	on, is := statement.Lookup("upsert").BooleanOK()
	return is && on
}

// narrowable reports whether a statement does the same to a document by whatever filter
// it was found. An upsert takes values from its filter unless that has only operators beside
// _id; the operator $ of an update or a projection takes the position in an array.
func narrowable(statement bson.Raw) bool {
	if upsert := statement.Lookup("upsert"); !upsert.IsZero() {
		if _, is := upsert.BooleanOK(); !is {
			return false
		}
	}
	if upserts(statement) {
		filter, is := statement.Lookup("q").DocumentOK()
		if !is { // of findAndModify
			return false
		}
		elements, _ := filter.Elements()
		for _, e := range elements {
			condition, is := e.Value().DocumentOK()
			if e.Key() != "_id" && (!is || !condition.Lookup("$eq").IsZero()) {
				return false
			}
		}
	}
	for _, member := range []string{"u", "update", "projection", "fields"} {
		if bytes.Contains(statement.Lookup(member).Value, []byte(".$")) {
			return false
		}
	}
	return statement.Lookup("collation").IsZero()
}

// candidate returns the _id of the only document that may match a filter, and the member
// of the filter that this follows from: "" where the filter is {_id: x} already. Where no
// document matches, it returns noID, and where several may, nil.
func (g *gate) candidate(db, collection string, filter bson.Raw) (id any, member string) {
	elements, _ := filter.Elements() // parsed before
	for _, e := range elements {
		if strings.HasPrefix(e.Key(), "$") || !plain(e.Value()) {
			return nil, ""
		}
	}
	for _, e := range elements {
		if value := e.Value(); e.Key() == "_id" && (value.Type == bson.TypeString || value.Type == bson.TypeObjectID) {
			if len(elements) == 1 {
				return value, ""
			}
			return value, "_id"
		}
	}
	for _, e := range elements {
		value, is := e.Value().StringValueOK()
		if !is {
			continue
		}
		id, ok, err := g.catalog.find(db, collection, e.Key(), value)
		switch {
		case err != nil:
			g.warn("a lookup by %s in %s.%s failed: %v", e.Key(), db, collection, err)
		case ok && id == nil:
			return noID, e.Key()
		case ok:
			return id, e.Key()
		}
	}
	return nil, ""
}

// plain reports whether a condition is a value, or one of the common operators with
// one. FerretDB refuses others when it compares a document, which it must do then.
func plain(condition bson.RawValue) bool {
	document, is := condition.DocumentOK()
	if !is {
		return scalar(condition)
	}
	operators, _ := document.Elements() // parsed before
	for _, o := range operators {
		operand := o.Value()
		switch o.Key() {
		case "$eq", "$ne", "$gt", "$gte", "$lt", "$lte":
			if !scalar(operand) {
				return false
			}
		case "$exists":
			if operand.Type != bson.TypeBoolean {
				return false
			}
		case "$in":
			values, is := operand.ArrayOK()
			if !is {
				return false
			}
			if all, err := values.Values(); err != nil || slices.ContainsFunc(all, func(v bson.RawValue) bool { return !scalar(v) }) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func scalar(v bson.RawValue) bool {
	switch v.Type {
	case bson.TypeString, bson.TypeObjectID, bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeBoolean, bson.TypeDateTime, bson.TypeBinary, bson.TypeNull:
		return true
	}
	return false
}

// matches asks FerretDB whether the document with an _id matches a filter, or exists if the
// filter is nil. It returns nil where FerretDB does not accept the filter: its reply to the
// request itself has the error.
func matches(db, collection string, id any, filter bson.Raw, ask func(message) (message, error)) (*bool, error) {
	if id == noID {
		return new(bool), nil
	}
	if filter == nil {
		filter, _ = bson.Marshal(bson.D{})
	}
	body, err := bson.Marshal(bson.D{
		{Key: "aggregate", Value: collection},
		{Key: "pipeline", Value: bson.A{
			bson.D{{Key: "$match", Value: bson.D{{Key: "_id", Value: id}}}},
			bson.D{{Key: "$match", Value: filter}},
			bson.D{{Key: "$project", Value: bson.D{{Key: "_id", Value: 1}}}},
		}},
		{Key: "cursor", Value: bson.D{}},
		{Key: "$db", Value: db},
	})
	if err != nil {
		return nil, err
	}
	reply, err := ask(newCommand(body))
	if err != nil {
		return nil, err
	}
	batch, is := reply.document().Lookup("cursor", "firstBatch").ArrayOK()
	if !is {
		return nil, nil
	}
	found, err := batch.Values()
	is = len(found) > 0
	return &is, err
}
