package main

import (
	"bytes"
	"crypto/rand"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// filterOf names the member that holds the filter, in the body or in the statements of a
// sequence.
var filterOf = map[string]struct{ sequence, member string }{
	"find": {"", "filter"}, "count": {"", "query"}, "findAndModify": {"", "query"},
	"update": {"updates", "q"}, "delete": {"deletes", "q"},
}

// noID is the _id of no document.
var noID = rand.Text()

// narrow returns a request with the same effect that FerretDB executes without a read of
// the whole collection, if there is such a request. It is needed because FerretDB uses
// an index only for the filter {_id: x}. Two other kinds of filter also match at most
// one document. One is a filter by _id with further conditions. The other is a filter by
// a field that has its own index. For these, narrow finds the document and asks FerretDB
// whether it matches the filter. It returns the request with the filter {_id: x}, or
// with a filter that matches nothing.
//
// The document must not change before the request is executed: see proxy.
func (p *proxy) narrow(request message, c command, send func(message) (message, error)) (message, error) {
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
			id, condition := p.candidate(db, collection, filter)
			if id == nil {
				return request, nil
			}
			if len(s.documents) > 1 { // each statement may change the matches of the next one
				value, is := id.(bson.RawValue)
				if !is || touched[string(value.Value)] {
					return request, nil
				}
				touched[string(value.Value)] = true
			}
			if condition == "" {
				continue // the filter is already {_id: x}
			}
			upsert := upserts(statement)
			if upsert && condition != "_id" {
				return request, nil
			}
			if keys, _ := filter.Elements(); len(keys) > 1 || condition == "_id" {
				found, err := matches(db, collection, id, filter, send)
				if err != nil || found == nil {
					return request, err
				}
				if !*found && upsert { // FerretDB inserts the document, or reports that its _id is in use
					found, err = matches(db, collection, id, nil, send)
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

// narrowable reports whether the effect of a statement depends only on the document, not
// on the filter that found it. An upsert takes values from its filter unless the filter
// has only operators beside _id. The operator $ of an update or a projection takes its
// array position from the filter.
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

// candidate returns the _id of the only document that may match a filter, and the
// filter's member that determines it. The member is "" if the filter is already {_id:
// x}. candidate returns noID if no document matches, and nil if several may match.
func (p *proxy) candidate(db, collection string, filter bson.Raw) (id any, member string) {
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
		id, ok, err := p.catalog.find(db, collection, e.Key(), value)
		switch {
		case err != nil:
			p.warn("cannot look up %s in %s.%s: %v", e.Key(), db, collection, err)
		case ok && id == nil:
			return noID, e.Key()
		case ok:
			return id, e.Key()
		}
	}
	return nil, ""
}

// plain reports whether a condition is a value, or consists of common operators with a
// value. FerretDB rejects some other operators only when it compares a document, so a
// filter with one must reach it unchanged.
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

// matches asks FerretDB whether the document with an _id matches a filter, or exists if
// the filter is nil. It returns nil if FerretDB rejects the filter. FerretDB's reply to
// the request itself then has the error.
func matches(db, collection string, id any, filter bson.Raw, send func(message) (message, error)) (*bool, error) {
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
	reply, err := send(newCommand(body))
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
