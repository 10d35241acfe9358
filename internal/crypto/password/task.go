package password

import (
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A task is the dear part of looking at a password: a derivation with argon2id, or a comparison with a digest of bcrypt.
type task struct {
	number   uint32 // its outcome has the same: an answer to another must not open an account
	password []byte
	digest   []byte // of bcrypt; none for argon2id
	salt     []byte // of argon2id, as the rest
	cost     cost
	lanes    uint8
	size     uint32 // of the key
}

// An outcome is what came of a task.
type outcome struct {
	number  uint32
	verdict verdict
	key     []byte // of argon2id
}

type verdict uint32

const (
	derived    verdict = iota // there is a key
	fits                      // the digest is one of the password
	differs                   // it is not
	unreadable                // it is none
)

// do does the task, which takes the better part of a tenth of a second of a processor.
func (t *task) do() outcome {
	if len(t.digest) == 0 {
		return outcome{t.number, derived, argon2.IDKey(t.password, t.salt, t.cost.passes, t.cost.memoryKiB, t.lanes, t.size)}
	}
	switch err := bcrypt.CompareHashAndPassword(t.digest, t.password); {
	case err == nil:
		return outcome{number: t.number, verdict: fits}
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return outcome{number: t.number, verdict: differs}
	}
	return outcome{number: t.number, verdict: unreadable}
}

// answers reports whether an outcome may be that of a task.
func (o *outcome) answers(t *task) bool {
	if o.number != t.number {
		return false
	}
	if len(t.digest) == 0 {
		return o.verdict == derived && len(o.key) == int(t.size)
	}
	return o.verdict == fits || o.verdict == differs || o.verdict == unreadable
}

// How tasks and outcomes pass between two processes of the same program: numbers of four bytes, of which the last are
// lengths, and then what they are the lengths of.

// maxPart bounds a text that is read: far above what the API takes.
const maxPart = 1 << 20

var errPart = errors.New("password: malformed task")

// send writes a message at once, and leaves nothing of it in memory.
func send(w io.Writer, numbers []uint32, texts ...[]byte) error {
	size := 4 * (len(numbers) + len(texts))
	for _, t := range texts {
		size += len(t)
	}
	b := make([]byte, 0, size)
	defer func() { clear(b) }()
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, t := range texts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
	}
	for _, t := range texts {
		b = append(b, t...)
	}
	_, err := w.Write(b)
	return err
}

// receive reads a message of as many numbers and texts.
func receive(r io.Reader, numbers []uint32, texts ...*[]byte) error {
	head := make([]byte, 4*(len(numbers)+len(texts)))
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	number := func(i int) uint32 { return binary.LittleEndian.Uint32(head[4*i:]) }
	for i := range numbers {
		numbers[i] = number(i)
	}
	for i, t := range texts {
		n := number(len(numbers) + i)
		if n > maxPart {
			return errPart
		}
		*t = make([]byte, n)
	}
	for _, t := range texts {
		if _, err := io.ReadFull(r, *t); err != nil {
			return err
		}
	}
	return nil
}

func (t *task) send(w io.Writer) error {
	return send(w, []uint32{t.number, t.cost.passes, t.cost.memoryKiB, uint32(t.lanes), t.size}, t.password, t.digest, t.salt)
}

func (t *task) receive(r io.Reader) error {
	var n [5]uint32
	if err := receive(r, n[:], &t.password, &t.digest, &t.salt); err != nil {
		return err
	}
	t.number, t.cost, t.lanes, t.size = n[0], cost{passes: n[1], memoryKiB: n[2]}, uint8(n[3]), n[4]
	if len(t.digest) == 0 && (t.cost.passes == 0 || t.lanes == 0 || n[3] > maxLanes || t.cost.memoryKiB > maxMemoryKiB) {
		return errPart
	}
	return nil
}

func (o *outcome) send(w io.Writer) error {
	return send(w, []uint32{o.number, uint32(o.verdict)}, o.key)
}

func (o *outcome) receive(r io.Reader) error {
	var n [2]uint32
	err := receive(r, n[:], &o.key)
	o.number, o.verdict = n[0], verdict(n[1])
	return err
}
