// Package trail keeps the audit trail as a chain, so that whoever changes rows in the database afterwards is found out.
//
// A Sealer takes the activities that were committed since its last turn, a few seconds at a time, into a block: the hash of
// each row, and the hash of the block before. The hash of the block is sealed with the keys of the service, which the database
// does not hold: who can only write to it can change rows and blocks, and cannot make them fit again. Nothing of this is part
// of the transaction that writes an activity.
//
// Blocks are in the order of ids. The rows of a transaction that commits after a later one, or that an import writes below what
// is sealed, are entries of a later block. Verify walks along blocks and rows together, in memory that does not grow with their
// number. Purge deletes old rows by whole blocks and leaves of each what the chain needs.
//
// What is not covered: the count of an activity, which grows for minutes after it was written; rows that were changed before
// they were sealed; and the newest end of the chain, which can be cut off. Who keeps a Head outside of the database can tell.
package trail

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"barong/db"
)

// Bounds.
const (
	blockRows = 1024               // entries of a block at most: what one transaction of a purge deletes
	hashSize  = 16                 // bytes of a row's hash in a block
	saltSize  = 16                 // bytes of a block's salt
	graceTime = time.Minute        // that an id may appear late although no transaction of its time is under way; see Sealer
	awaitTime = 7 * 24 * time.Hour // after which an id is not awaited any more, whatever is under way
	awaitMost = 10_000             // ranges of ids that are awaited at a time
)

// A Head names the newest block of a chain, and so everything before it.
type Head struct {
	Seq  int64 // of the block; 0 where there is none
	Hash [sha256.Size]byte
}

// String is the form that ParseHead reads: "412:" and 64 hexadecimal digits, or "0" where there is no block.
func (h Head) String() string {
	if h.Seq == 0 {
		return "0"
	}
	return strconv.FormatInt(h.Seq, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

// ParseHead reads a head as String writes it.
func ParseHead(text string) (Head, error) {
	number, digits, _ := strings.Cut(strings.TrimSpace(text), ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	hash, herr := hex.DecodeString(digits)
	if err != nil || herr != nil || seq < 0 || len(hash) != sha256.Size && (seq != 0 || len(hash) != 0) {
		return Head{}, fmt.Errorf("%q is no head: a block's number, a colon and 64 hexadecimal digits", text)
	}
	h := Head{Seq: seq}
	copy(h.Hash[:], hash)
	return h, nil
}

// An entry is a row in a block.
type entry struct {
	id   int64
	hash [hashSize]byte
}

var errEntries = errors.New("trail: the entries are not in their form")

// encodeEntries writes entries in the order of their ids.
func encodeEntries(entries []entry) []byte {
	out := make([]byte, 0, len(entries)*(hashSize+1))
	last := int64(0)
	for _, e := range entries {
		out = binary.AppendUvarint(out, uint64(e.id-last))
		out = append(out, e.hash[:]...)
		last = e.id
	}
	return out
}

func decodeEntries(b []byte) ([]entry, error) {
	out := make([]entry, 0, len(b)/(hashSize+1))
	last := int64(0)
	for len(b) > 0 {
		step, n := binary.Uvarint(b)
		if n <= 0 || len(b) < n+hashSize || int64(step) <= 0 || last+int64(step) <= last {
			return nil, errEntries
		}
		last += int64(step)
		out = append(out, entry{last, [hashSize]byte(b[n : n+hashSize])})
		b = b[n+hashSize:]
	}
	return out, nil
}

// An await is a range of ids that were missing when the rows around them were sealed, and may still appear.
type await struct {
	db.IDRange

	begun int64 // no transaction of this number or above had begun then
	at    int64 // Unix seconds
}

func encodeAwaits(list []await) []byte {
	out := []byte{}
	last := int64(0)
	for _, a := range list {
		for _, n := range []int64{a.First - last, a.Last - a.First, a.begun, a.at} {
			out = binary.AppendUvarint(out, uint64(n))
		}
		last = a.Last
	}
	return out
}

func decodeAwaits(b []byte) ([]await, error) {
	var out []await
	last := int64(0)
	for len(b) > 0 {
		var v [4]int64
		for i := range v {
			u, n := binary.Uvarint(b)
			if n <= 0 || int64(u) < 0 {
				return nil, errEntries
			}
			v[i], b = int64(u), b[n:]
		}
		a := await{db.IDRange{First: last + v[0], Last: last + v[0] + v[1]}, v[2], v[3]}
		if v[0] < 1 || a.First < last || a.Last < a.First {
			return nil, errEntries
		}
		last, out = a.Last, append(out, a)
	}
	return out, nil
}

// without takes ids, which are in order, out of ranges.
func without(list []await, ids []int64) []await {
	out := make([]await, 0, len(list))
	for _, a := range list {
		i, _ := slices.BinarySearch(ids, a.First)
		for ; i < len(ids) && ids[i] <= a.Last; i++ {
			if a.First < ids[i] {
				left := a
				left.Last = ids[i] - 1
				out = append(out, left)
			}
			a.First = ids[i] + 1
		}
		if a.First <= a.Last {
			out = append(out, a)
		}
	}
	return out
}

// A rowHasher hashes rows for one block. The block's salt is drawn when the rows stand there already, so that nobody can have
// prepared two rows of the same hash.
type rowHasher struct {
	salt []byte
	buf  []byte
}

// hash is over all that never changes of a row: not over its count. Adding a column to activities needs a new form of blocks,
// or the column stays unsealed.
func (h *rowHasher) hash(a *db.Activity) [hashSize]byte {
	b := append(h.buf[:0], h.salt...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.ID))
	b = binary.BigEndian.AppendUint64(b, uint64(a.UserID))
	b = binary.BigEndian.AppendUint64(b, uint64(a.CreatedAt.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(a.CreatedAt.Nanosecond()))
	for _, s := range [...]*string{
		&a.Category, &a.UserIP, &a.UserAgent, &a.Topic, &a.Action, &a.Result, a.TargetUID, a.UserIPCountry, a.Data, a.RequestID,
	} {
		if s == nil {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		b = binary.BigEndian.AppendUint64(b, uint64(len(*s)))
		b = append(b, *s...)
	}
	h.buf = b
	sum := sha256.Sum256(b)
	return [hashSize]byte(sum[:])
}

// hashOf is the hash of a block: over all of it but its entries, for which their digest stands, its seal and its purge.
func hashOf(b *db.AuditBlock) [sha256.Size]byte {
	out := []byte("barong audit block 1\x00")
	for _, part := range [...][]byte{b.Previous, b.Salt, b.Digest, b.Awaited} {
		out = binary.BigEndian.AppendUint64(out, uint64(len(part)))
		out = append(out, part...)
	}
	for _, n := range [...]int64{
		b.Seq, b.SealedAt.Unix(), b.RowCount, b.AfterID, b.ThroughID, b.FirstID, b.LastID, b.FromAt.Unix(), b.UntilAt.Unix(),
	} {
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	return sha256.Sum256(out)
}

// headOf is the head that a block is.
func headOf(b *db.AuditBlock) Head { return Head{b.Seq, hashOf(b)} }

// An opener opens what is sealed in blocks: a database or a transaction.
type opener interface {
	OpenBlock(b *db.AuditBlock) ([]byte, error)
	OpenPurge(b *db.AuditBlock) ([]byte, error)
}

// errAltered says that a block is not as it was sealed.
var errAltered = errors.New("trail: the block is not as it was sealed")

// proven reports why a block is not as it was sealed: errAltered, or that its key is not there.
func proven(o opener, b *db.AuditBlock) error {
	sealed, err := o.OpenBlock(b)
	if err != nil {
		return err
	}
	if hash := hashOf(b); !bytes.Equal(sealed, hash[:]) {
		return errAltered
	}
	if b.Entries != nil {
		if digest := sha256.Sum256(b.Entries); !hmac.Equal(digest[:], b.Digest) {
			return errAltered
		}
	}
	return nil
}
