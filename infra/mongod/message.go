package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The wire protocol, as far as the gate must know it. Every message begins
// with four little-endian int32: its length, these included, its number, the
// number it answers, and its opcode. Source: MongoDB Wire Protocol,
// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerLength = 16
	opMsg        = 2013

	// moreToCome in a request says that the client wants no reply (write
	// concern w:0).
	moreToCome = 1 << 1

	// maxMessageLength is what MongoDB and FerretDB announce to clients as
	// maxMessageSizeBytes.
	maxMessageLength = 48_000_000
)

// A message is one whole wire message, header included.
type message []byte

// malformed is the error for bytes that are no message. There is no way back
// to a message boundary after it.
type malformed string

func (m malformed) Error() string { return string(m) }

// readMessage reads one message. It answers io.EOF between two messages,
// io.ErrUnexpectedEOF within one, and malformed for what cannot be one.
//
// Memory grows with what arrives, not with what the length promises.
func readMessage(r io.Reader) (message, error) {
	var header [headerLength]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int32(binary.LittleEndian.Uint32(header[:]))
	if length < headerLength || length > maxMessageLength {
		return nil, malformed(fmt.Sprintf("message length %d is not within %d and %d", length, headerLength, maxMessageLength))
	}
	whole := bytes.NewBuffer(make([]byte, 0, min(length, 64<<10)))
	whole.Write(header[:])
	if _, err := io.CopyN(whole, r, int64(length)-headerLength); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return message(whole.Bytes()), nil
}

// wantsReply reports whether the client will read a reply to this request.
func (m message) wantsReply() bool {
	if len(m) < headerLength+4 || binary.LittleEndian.Uint32(m[12:]) != opMsg {
		return true
	}
	return binary.LittleEndian.Uint32(m[headerLength:])&moreToCome == 0
}

// nameFullDisk gives the error of a full disk the code that MongoDB has for it.
// FerretDB passes on what SQLite says as an internal error, and of that a client must
// think that no other try will help.
func (m message) nameFullDisk() {
	const (
		document       = headerLength + 4 + 1 // the flags, and the kind of the section
		checksum       = 1 << 0
		internalError  = 1
		outOfDiskSpace = 14031 // its name in the reply stays
	)
	if len(m) < document || !bytes.Contains(m, []byte("database or disk is full (13)")) || m[headerLength]&checksum != 0 {
		return
	}
	reply := bson.Raw(m[document:])
	ok, isNumber := reply.Lookup("ok").DoubleOK()
	code := reply.Lookup("code")
	if n, is := code.Int32OK(); isNumber && ok == 0 && is && n == internalError {
		binary.LittleEndian.PutUint32(code.Value, outOfDiskSpace)
	}
}
