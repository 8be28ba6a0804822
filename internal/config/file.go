package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"heartwheel/internal/wording"
)

// maxFile is the size of the largest file that is read, in bytes.
const maxFile = 1 << 20

// ReadFile reads a file that is small enough for ParseYAML. The error continues
// a sentence that begins with the path.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", wording.Cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", wording.Cause(err))
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is larger than %s", FormatSize(maxFile))
	}
	return data, nil
}

// CheckLasting returns an error unless path names a regular file that another
// process, started later, reads as well. A pipe is empty then, and descriptors,
// such as those of /dev/stdin and of <(…) in a shell, are this process's own. The
// error continues a sentence that begins with the path; a path that leads nowhere
// is left to ReadFile.
func CheckLasting(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return nil
	}
	if info.Mode().IsRegular() && !ofDescriptor(path) {
		return nil
	}
	return errors.New("is not a regular file, and cannot be read again by a worker or a successor; " +
		"save it to a file and give the path of that")
}

// ofDescriptor reports whether path, or a link that it leads to, stands for a
// descriptor of a process.
func ofDescriptor(path string) bool {
	for range 40 { // as many links as Linux follows
		path, _ = filepath.Abs(path) // fails without a working directory only
		if strings.HasPrefix(path, "/dev/fd/") || strings.HasPrefix(path, "/proc/") && strings.Contains(path, "/fd/") {
			return true
		}
		target, err := os.Readlink(path)
		if err != nil {
			return false
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return false
}

// ParseYAML returns the layer of a YAML file: one mapping, flat, of values that
// are scalars or lists of scalars. A scalar's text counts, whatever YAML would
// make of it, so that 0100 is the same number as in a flag. source names the file
// in origins. The error continues a sentence that begins with the path; what is
// wrong with a single key is left to Merge.
func ParseYAML(source string, data []byte) (Layer, error) {
	l := Layer{source: source, file: true}
	mapping, err := readMapping(data)
	if err == nil && mapping != nil {
		l.entries = fileEntries(mapping, "")
	}
	return l, err
}

// readMapping returns the mapping that the one document of data holds; nil if it
// holds nothing. Aliases are not expanded, so the result is no larger than data.
func readMapping(data []byte) (*yaml.Node, error) {
	var mapping *yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return mapping, nil
		case err != nil:
			return nil, fmt.Errorf("is not YAML of the form `key: value`: %s", yamlCause(err))
		}
		if len(document.Content) == 0 || isNull(document.Content[0]) {
			continue
		}
		root := document.Content[0]
		switch {
		case mapping != nil:
			return nil, fmt.Errorf("holds more than one YAML document: line %d begins another; "+
				"leave out the lines of only ---", root.Line)
		case root.Kind != yaml.MappingNode:
			return nil, fmt.Errorf("is not YAML of the form `key: value`: line %d is not a key and its value",
				root.Line)
		}
		mapping = root
	}
}

// yamlCause puts the parser's message on one line.
func yamlCause(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return yamlPrefix.ReplaceAllString(text, "")
}

var yamlPrefix = regexp.MustCompile(`^(yaml: |go-yaml |load errors: )+`)

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// fileEntries returns an entry for each key of a mapping. outer is the keys
// around it, each with a dot after it.
func fileEntries(mapping *yaml.Node, outer string) []entry {
	var entries []entry
	first := map[string]int{} // line of each key
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		e := entry{key: outer + key.Value, line: mapping.Content[i].Line}
		line, again := first[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			e.key = outer + "?"
		case again:
			e.err = fmt.Errorf("is set already in line %d; give it once", line)
		default:
			first[key.Value] = e.line
			e.node = value
			e.texts, e.err = nodeTexts(value, e.line)
			if value.Kind == yaml.MappingNode {
				e.inner = fileEntries(value, e.key+".")
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// nodeTexts returns the text of a scalar, or those of a list of scalars. line is
// that of the key.
func nodeTexts(n *yaml.Node, line int) ([]text, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case isNull(n):
		return nil, errors.New("has no value; write one or leave it out")
	case n.Kind == yaml.ScalarNode:
		return []text{{n.Value, line}}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, errors.New("holds further keys; the file is flat, one `key: value` a line")
	case len(n.Content) == 0:
		return nil, errors.New("is an empty list; write at least one value or leave it out")
	}
	var texts []text
	for _, element := range n.Content {
		at := element.Line
		if element.Kind == yaml.AliasNode {
			element = element.Alias
		}
		switch {
		case isNull(element):
			return nil, fmt.Errorf("has an element without a value in line %d; write one or leave it out", at)
		case element.Kind == yaml.SequenceNode:
			return nil, fmt.Errorf("is a list of lists in line %d; write a plain list", at)
		case element.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("is a list with further keys in line %d; write a plain list", at)
		}
		texts = append(texts, text{element.Value, at})
	}
	return texts, nil
}
