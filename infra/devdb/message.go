package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The part of the wire protocol that the proxy uses. Every message begins with a header of
// four little-endian int32. They are the total length, the request ID, the request ID that a
// reply refers to, and the opcode. Source: MongoDB Wire Protocol,
// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerLength = 16
	opReply      = 1
	opQuery      = 2004
	opMsg        = 2013

	// moreToCome in a request means that the client expects no reply (write concern
	// w:0). checksum means that four bytes follow the last section.
	moreToCome = 1 << 1
	checksum   = 1 << 0

	// maxMessageLength is the maxMessageSizeBytes that MongoDB and FerretDB report to
	// clients.
	maxMessageLength = 48_000_000
)

// A message is one complete message of the wire protocol, including its header.
type message []byte

// A malformedError is the error for bytes that are not a message. After it, the reader
// cannot find the next message boundary.
type malformedError string

func (e malformedError) Error() string { return string(e) }

// readMessage reads one message. It returns io.EOF between two messages,
// io.ErrUnexpectedEOF within one, and a malformedError for an invalid length.
//
// Memory use grows with the received bytes, not with the length that the header states.
func readMessage(r io.Reader) (message, error) {
	var header [headerLength]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int32(binary.LittleEndian.Uint32(header[:]))
	if length < headerLength || length > maxMessageLength {
		return nil, malformedError(fmt.Sprintf("message length %d is not between %d and %d", length, headerLength, maxMessageLength))
	}
	content := bytes.NewBuffer(make([]byte, 0, min(length, 64<<10)))
	content.Write(header[:])
	if _, err := io.CopyN(content, r, int64(length)-headerLength); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return message(content.Bytes()), nil
}

func (m message) opcode() uint32 { return binary.LittleEndian.Uint32(m[12:]) }

// wantsReply reports whether the client expects a reply to this request.
func (m message) wantsReply() bool {
	if len(m) < headerLength+4 || m.opcode() != opMsg {
		return true
	}
	return binary.LittleEndian.Uint32(m[headerLength:])&moreToCome == 0
}

// asReplyTo returns the message as the reply to a request.
func (m message) asReplyTo(request message) message {
	reply := slices.Clone(m)
	copy(reply[8:12], request[4:8])
	return reply
}

// A section is a part of an OP_MSG. It is the body, with one document and no name, or a
// sequence of documents such as "updates".
type section struct {
	name      string
	documents []bson.Raw
}

// A command is the content of an OP_MSG.
type command struct {
	name     string // such as "find"
	sections []section
}

var errNoCommand = errors.New("not a command")

// command returns the content of an OP_MSG without a checksum.
func (m message) command() (command, error) {
	if len(m) < headerLength+4 || m.opcode() != opMsg || m[headerLength]&checksum != 0 {
		return command{}, errNoCommand
	}
	var c command
	for rest := m[headerLength+4:]; len(rest) > 0; {
		kind := rest[0]
		var s section
		var documents []byte
		switch rest = rest[1:]; {
		case len(rest) < 4:
			return command{}, errNoCommand
		case kind == 0:
			size := int(int32(binary.LittleEndian.Uint32(rest)))
			if size < 5 || size > len(rest) {
				return command{}, errNoCommand
			}
			documents, rest = rest[:size], rest[size:]
		case kind == 1:
			size := int(int32(binary.LittleEndian.Uint32(rest)))
			if size < 4 || size > len(rest) {
				return command{}, errNoCommand
			}
			name, after, found := bytes.Cut(rest[4:size], []byte{0})
			if !found {
				return command{}, errNoCommand
			}
			s.name, documents, rest = string(name), after, rest[size:]
		default:
			return command{}, errNoCommand
		}
		for len(documents) > 0 {
			if len(documents) < 5 {
				return command{}, errNoCommand
			}
			size := int(int32(binary.LittleEndian.Uint32(documents)))
			if size < 5 || size > len(documents) {
				return command{}, errNoCommand
			}
			document := bson.Raw(documents[:size])
			if document.Validate() != nil {
				return command{}, errNoCommand
			}
			s.documents, documents = append(s.documents, document), documents[size:]
		}
		c.sections = append(c.sections, s)
	}
	body := c.body()
	if body == nil {
		return command{}, errNoCommand
	}
	first, err := body.IndexErr(0)
	if err != nil {
		return command{}, errNoCommand
	}
	c.name = first.Key()
	return c, nil
}

// body returns the document that names the command.
func (c command) body() bson.Raw {
	for _, s := range c.sections {
		if s.name == "" && len(s.documents) == 1 {
			return s.documents[0]
		}
	}
	return nil
}

// namespace returns the database and the collection of the command, or "".
func (c command) namespace() (db, collection string) {
	body := c.body()
	db, _ = body.Lookup("$db").StringValueOK()
	collection, _ = body.Lookup(c.name).StringValueOK()
	return db, collection
}

// with returns the message with other sections.
func (m message) with(sections []section) message {
	out := slices.Clone(m[:headerLength+4])
	for _, s := range sections {
		if s.name == "" {
			out = append(append(out, 0), s.documents[0]...)
			continue
		}
		out = append(out, 1)
		begin := len(out)
		out = append(append(append(out, 0, 0, 0, 0), s.name...), 0)
		for _, d := range s.documents {
			out = append(out, d...)
		}
		binary.LittleEndian.PutUint32(out[begin:], uint32(len(out)-begin))
	}
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

// newCommand returns a request with a document as its body.
func newCommand(body bson.Raw) message {
	m := make(message, headerLength+4)
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	return m.with([]section{{documents: []bson.Raw{body}}})
}

// document returns the document of a reply, or nil.
func (m message) document() bson.Raw {
	begin := headerLength + 4 + 1 // flags and the kind of the section
	switch {
	case len(m) < headerLength+4:
		return nil
	case m.opcode() == opReply:
		begin = headerLength + 4 + 8 + 4 + 4 // flags, cursor, first document, number of documents
	case m.opcode() != opMsg || m[headerLength]&checksum != 0:
		return nil
	}
	if len(m) < begin {
		return nil
	}
	document := bson.Raw(m[begin:])
	if document.Validate() != nil {
		return nil
	}
	return document
}

// withMember returns a reply with one more string member in its document.
func (m message) withMember(name, value string) message {
	document := m.document()
	if document == nil {
		return m
	}
	begin := len(m) - len(document)
	out := slices.Clone(m[:len(m)-1])
	out = append(append(append(out, byte(bson.TypeString)), name...), 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(value)+1))
	out = append(append(append(out, value...), 0), 0)
	binary.LittleEndian.PutUint32(out[begin:], uint32(len(out)-begin))
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

// replace returns a document with a new value for one of its members.
func replace(document bson.Raw, member string, value bson.Raw) bson.Raw {
	out := make(bson.Raw, 4, len(document)+len(value))
	elements, _ := document.Elements() // parsed before
	for _, e := range elements {
		if e.Key() != member {
			out = append(out, e...)
			continue
		}
		out = append(append(append(out, byte(bson.TypeEmbeddedDocument)), member...), 0)
		out = append(out, value...)
	}
	out = append(out, 0)
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

// setDiskFullCode replaces the error code of a full disk by MongoDB's code for it.
// FerretDB reports SQLite's error as an internal error, and a client would then never
// retry.
func (m message) setDiskFullCode() {
	const (
		internalError  = 1
		outOfDiskSpace = 14031 // the codeName in the reply stays unchanged
	)
	if !bytes.Contains(m, []byte("database or disk is full (13)")) {
		return
	}
	reply := m.document()
	if reply == nil {
		return
	}
	ok, isNumber := reply.Lookup("ok").DoubleOK()
	code := reply.Lookup("code")
	if n, is := code.Int32OK(); isNumber && ok == 0 && is && n == internalError {
		binary.LittleEndian.PutUint32(code.Value, outOfDiskSpace)
	}
}
