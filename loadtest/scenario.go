package loadtest

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"

	"heartwheel/internal/wording"
)

//go:embed scenarios/*.yaml
var shipped embed.FS

// maxScenario bounds what is read of a scenario.
const maxScenario = 1 << 20

// ScenarioNames lists the scenarios that are built in.
func ScenarioNames() []string {
	entries, _ := shipped.ReadDir("scenarios") // cannot fail
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// ReadScenario reads a scenario: one that is built in, by its name, or a YAML
// file, by its path. The error says what to do.
func ReadScenario(name string) (Layer, error) {
	l := Layer{From: "scenario " + name, Values: map[string][]string{}}
	text, err := shipped.ReadFile(path.Join("scenarios", name+".yaml"))
	if err != nil {
		if text, err = readScenarioFile(name); err != nil {
			return l, &PlanError{[]string{fmt.Sprintf("scenario %q: %s", name, err)}}
		}
	}
	values, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return l, &PlanError{[]string{fmt.Sprintf("scenario %q: is not YAML of the form `key: value`: %s", name,
			strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: "))}}
	}
	var lines []string
	for _, key := range sortedKeys(values) {
		texts, err := plainTexts(values[key])
		if err != nil {
			lines = append(lines, fmt.Sprintf("%s (%s): %s", key, l.From, err))
			continue
		}
		l.Values[key] = texts
	}
	if len(lines) > 0 {
		return l, &PlanError{lines}
	}
	return l, nil
}

func readScenarioFile(name string) ([]byte, error) {
	do := fmt.Sprintf("give the path of a YAML file, or one of %s", wording.Choice(ScenarioNames()))
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w; %s", wording.Cause(err), do)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxScenario+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w; %s", wording.Cause(err), do)
	}
	if len(text) > maxScenario {
		return nil, fmt.Errorf("is larger than %d bytes; %s", maxScenario, do)
	}
	return text, nil
}

// plainTexts turns a value of YAML into the texts that a user could have given
// on the command line.
func plainTexts(v any) ([]string, error) {
	texts, err := wording.Texts(v)
	if errors.Is(err, wording.ErrNotPlain) {
		err = fmt.Errorf("%w; write key: value", err)
	}
	return texts, err
}
