package server

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"heartwheel/codec"
)

// numbered returns a whole frame of the op that carries a number and padding.
func numbered(op codec.Op, n, pad int) []byte {
	return codec.AppendFrame(nil, op, append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, pad)...))
}

func TestOutboxControlFirst(t *testing.T) {
	var o outbox
	d1, d2, c1 := numbered(codec.OpData, 1, 3), numbered(codec.OpData, 2, 0), numbered(codec.OpPong, 3, 0)
	for _, f := range []struct {
		b       []byte
		control bool
	}{{d1, false}, {d2, false}, {c1, true}} {
		if !o.add(f.b, f.control, 0, 1000) {
			t.Fatal("it did not fit")
		}
	}
	if got := o.next(); !bytes.Equal(got, c1) {
		t.Fatalf("next is % x, not the control frame", got)
	}
	o.wrote(len(c1))
	o.wrote(2) // into the header of the first data frame
	if !o.add(c1, true, 0, 1000) {
		t.Fatal("it did not fit")
	}
	if got := o.next(); !bytes.Equal(got, d1[2:]) {
		t.Fatalf("next is % x, not the rest of the frame that is half written", got)
	}
	o.wrote(len(d1) - 2)
	if got := o.next(); !bytes.Equal(got, c1) {
		t.Fatalf("next is % x, not the control frame", got)
	}
	o.wrote(len(c1))
	o.wrote(len(d2))
	if o.next() != nil || o.len() != 0 {
		t.Fatalf("%d bytes are left", o.len())
	}
}

func TestOutboxHalfWrittenFirst(t *testing.T) {
	var o outbox
	d, c := numbered(codec.OpData, 1, 9), numbered(codec.OpPong, 2, 0)
	for cut := 1; cut < len(d); cut++ { // truncated at every byte
		o = outbox{}
		o.add(d[cut:], false, len(d)-cut, 1000)
		o.add(c, true, 0, 1000)
		got := append([]byte(nil), d[:cut]...)
		for b := o.next(); b != nil; b = o.next() {
			got = append(got, b[0])
			o.wrote(1)
		}
		if want := append(append([]byte(nil), d...), c...); !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: % x, want % x", cut, got, want)
		}
	}
}

// A frame's length may lie in two blocks. What is half written goes on before any
// control.
func TestOutboxLengthInTwoBlocks(t *testing.T) {
	const block = 512 // the first one of a queue
	c := numbered(codec.OpPong, 3, 0)
	for cut := range codec.HeaderSize { // so much of it in the first
		var o outbox
		d1, d2 := numbered(codec.OpData, 1, block-cut-9), numbered(codec.OpData, 2, 300)
		o.add(d1, false, 0, 1<<20)
		o.add(d2, false, 0, 1<<20)
		if got := o.next(); len(got) != block {
			t.Fatalf("the first block has %d bytes, not %d", len(got), block)
		}
		o.wrote(block)
		o.add(c, true, 0, 1<<20)
		var got []byte
		for b := o.next(); b != nil; b = o.next() {
			got = append(got, b...)
			o.wrote(len(b))
		}
		want := slices.Concat(d2[cut:], c)
		if cut == 0 {
			want = slices.Concat(c, d2)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes of the length in the first block: % x follow, want % x", cut, got, want)
		}
	}
}

func TestOutboxLimit(t *testing.T) {
	var o outbox
	f := numbered(codec.OpData, 1, 11) // 20 bytes
	if !o.add(f, false, 0, 40) || !o.add(f, true, 0, 40) {
		t.Fatal("what fits exactly was refused")
	}
	if o.add(codec.AppendBeat(nil), true, 0, 40) {
		t.Fatal("4 bytes more than the limit were taken")
	}
	if o.len() != 40 {
		t.Fatalf("a refused frame left %d bytes instead of 40", o.len())
	}
}

func TestOutboxGivesMemoryBack(t *testing.T) {
	var o outbox
	o.add(numbered(codec.OpData, 1, 4000), false, 0, 1<<20)
	o.add(numbered(codec.OpPong, 1, 100), true, 0, 1<<20)
	for b := o.next(); b != nil; b = o.next() {
		o.wrote(len(b))
	}
	if o.control.blocks != nil || o.data.blocks != nil {
		t.Fatalf("empty queues keep %d and %d bytes", room(&o.control), room(&o.data))
	}
}

// room is the memory of a queue.
func room(q *queue) (n int) {
	for _, b := range q.blocks {
		n += cap(b)
	}
	return n
}

// What a peer that never reads costs is the limit and not more, and nothing of it
// is copied.
func TestOutboxGrows(t *testing.T) {
	const limit = 256 << 10
	for _, size := range []int{20, 1000, 16<<10 + 5, 100 << 10} {
		var o outbox
		f := numbered(codec.OpData, 1, size-9)
		for {
			var first *byte
			if o.len() > 0 {
				first = &o.next()[0]
			}
			if !o.add(f, false, 0, limit) {
				break
			}
			if first != nil && first != &o.next()[0] {
				t.Fatalf("frames of %d bytes: what waits was copied at %d bytes", size, o.len())
			}
		}
		if n := room(&o.data); n > limit {
			t.Errorf("frames of %d bytes: %d bytes that wait take %d; the limit is %d", size, o.len(), n, limit)
		}
		for _, b := range o.data.blocks {
			if cap(b) > blockMost {
				t.Errorf("frames of %d bytes: a block of %d bytes", size, cap(b))
			}
		}
	}
}

// TestOutboxModel compares an outbox with two lists of frames: what comes out
// is a stream of whole frames, each kind in order, no data before control that
// was waiting when the data began.
func TestOutboxModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.OneOf(rapid.IntRange(64, 6000), rapid.IntRange(60_000, 200_000)).Draw(t, "limit")
		var (
			o             outbox
			control, data [][]byte // waiting; the first may be under way
			begun         []byte   // what of the frame under way has gone out
			want          []byte   // and all of it
			n             int
		)
		waiting := func() (sum int) {
			for _, f := range control {
				sum += len(f)
			}
			for _, f := range data {
				sum += len(f)
			}
			return sum + len(want) - len(begun)
		}
		frame := func(op codec.Op) []byte {
			n++
			return numbered(op, n, rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 50_000)).Draw(t, "pad"))
		}
		add := func(op codec.Op, isControl bool) {
			f := frame(op)
			fits := waiting()+len(f) <= limit
			if got := o.add(f, isControl, 0, limit); got != fits {
				t.Fatalf("add of %d bytes to %d of %d: %v", len(f), waiting(), limit, got)
			}
			if !fits {
				return
			}
			if isControl {
				control = append(control, f)
			} else {
				data = append(data, f)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"control": func(*rapid.T) { add(codec.OpPong, true) },
			"data":    func(*rapid.T) { add(codec.OpData, false) },
			"half": func(t *rapid.T) {
				if o.len() > 0 {
					t.Skip("only an empty outbox gets the rest of a frame")
				}
				f := frame(codec.OpData)
				cut := rapid.IntRange(1, len(f)-1).Draw(t, "cut")
				if o.add(f[cut:], false, len(f)-cut, limit) != (len(f)-cut <= limit) {
					t.Fatal("wrong verdict on the limit")
				}
				if len(f)-cut <= limit {
					begun, want = append([]byte(nil), f[:cut]...), f
				}
			},
			"write": func(t *rapid.T) {
				b := o.next()
				if len(b) == 0 {
					if waiting() != 0 {
						t.Fatalf("nothing to write, but %d bytes wait", waiting())
					}
					t.Skip("empty")
				}
				k := rapid.IntRange(1, len(b)).Draw(t, "progress")
				for _, x := range b[:k] {
					if len(want) == 0 { // a frame begins
						if len(control) > 0 {
							want, control = control[0], control[1:]
						} else if len(data) > 0 {
							want, data = data[0], data[1:]
						} else {
							t.Fatal("more came out than went in")
						}
					}
					if begun = append(begun, x); x != want[len(begun)-1] {
						t.Fatalf("byte %d of a frame is %#x, want %#x", len(begun)-1, x, want[len(begun)-1])
					}
					if len(begun) == len(want) {
						begun, want = nil, nil
					}
				}
				o.wrote(k)
			},
			"": func(t *rapid.T) {
				if o.len() != waiting() {
					t.Fatalf("it holds %d bytes, not %d", o.len(), waiting())
				}
				for _, q := range []*queue{&o.control, &o.data} {
					if room(q) > limit+blockMost || o.len() > limit {
						t.Fatalf("%d bytes, capacity %d, limit %d", o.len(), room(q), limit)
					}
					if q.len() == 0 && q.blocks != nil {
						t.Fatalf("an empty queue keeps %d bytes", room(q))
					}
				}
			},
		})
	})
}
