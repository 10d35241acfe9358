package policy

import (
	"bytes"
	"strings"
)

// A kind is what a rule does to the paths that it matches.
type kind uint8

const (
	accept kind = iota // grants; matches at a segment boundary
	drop               // refuses; matches wide
	audit              // records; matches wide
	kinds
)

// A node of a radix tree over path prefixes. The rules of a path prefix are at the node where that prefix ends, so all
// rules that match a path lie on the one way down that the path spells: finding them takes time by the length of the
// path, however many rules there are.
type node struct {
	edge     string // the bytes between the parent and this node
	labels   []byte // first byte of each child's edge
	children []*node
	rules    [kinds][]int32 // indexes of the rules whose prefix ends here, in stored order
	atEnd    [kinds][]int32 // wide rules "here/": they also match the path that ends here
	slash    bool           // the prefix ends in a slash, or is empty: a segment boundary by itself
}

// add puts rule number i, of kind k and prefix, into the tree. Rules are added in stored order.
func (n *node) add(prefix string, k kind, i int32) {
	end := n.grow(prefix)
	end.slash = strings.HasSuffix(prefix, "/")
	end.rules[k] = append(end.rules[k], i)
	if k != accept && len(prefix) > 1 && end.slash {
		end = n.grow(prefix[:len(prefix)-1])
		end.atEnd[k] = append(end.atEnd[k], i)
	}
}

// grow returns the node at which prefix ends, and makes it if there is none.
func (n *node) grow(prefix string) *node {
	for prefix != "" {
		at := bytes.IndexByte(n.labels, prefix[0])
		if at < 0 {
			leaf := &node{edge: prefix}
			n.labels, n.children = append(n.labels, prefix[0]), append(n.children, leaf)
			return leaf
		}
		child := n.children[at]
		same := 0
		for same < len(prefix) && same < len(child.edge) && prefix[same] == child.edge[same] {
			same++
		}
		if same < len(child.edge) { // the prefix leaves in the middle of the edge: split it there
			upper := &node{edge: child.edge[:same], labels: []byte{child.edge[same]}, children: []*node{child}}
			upper.slash = strings.HasSuffix(upper.edge, "/")
			child.edge = child.edge[same:]
			n.children[at], child = upper, upper
		}
		n, prefix = child, prefix[same:]
	}
	return n
}

// hits is the first rule of each kind that matched, by stored order. Its zero value has none.
type hits struct{ first [kinds]int32 } // index + 1

func (h *hits) get(k kind) (int32, bool) { return h.first[k] - 1, h.first[k] != 0 }

func (h *hits) note(k kind, rules []int32, trace *[]int32) {
	if len(rules) == 0 {
		return
	}
	if first := rules[0] + 1; h.first[k] == 0 || first < h.first[k] {
		h.first[k] = first
	}
	if trace != nil {
		*trace = append(*trace, rules...)
	}
}

// walk finds the rules that match path. It is the only reader of a tree: a decision passes no trace, an explanation
// passes one and gets the indexes of all matching rules, in no particular order and possibly twice.
func (n *node) walk(path string, h *hits, trace *[]int32) {
	rest := path
	for {
		h.note(drop, n.rules[drop], trace)
		h.note(audit, n.rules[audit], trace)
		if rest == "" {
			h.note(accept, n.rules[accept], trace)
			h.note(drop, n.atEnd[drop], trace)
			h.note(audit, n.atEnd[audit], trace)
			return
		}
		if n.slash || rest[0] == '/' || rest[0] == '.' {
			h.note(accept, n.rules[accept], trace)
		}
		at := bytes.IndexByte(n.labels, rest[0])
		if at < 0 {
			return
		}
		n = n.children[at]
		if !strings.HasPrefix(rest, n.edge) {
			return
		}
		rest = rest[len(n.edge):]
	}
}

// pathMatches says whether a rule of kind k with the given prefix matches path. It states in one line each what the
// tree does, and is the matcher function of the Casbin model.
func pathMatches(path, prefix string, k kind) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	if k != accept {
		return ok || len(prefix) > 1 && path+"/" == prefix
	}
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '.' || strings.HasSuffix(prefix, "/"))
}
