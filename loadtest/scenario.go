package loadtest

import (
	"embed"
	"fmt"
	"path"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/internal/wording"
)

//go:embed scenarios/*.yaml
var shipped embed.FS

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
// file, by its path. The error is a *PlanError that says what to do.
func ReadScenario(name string) (config.Layer, error) {
	data, err := shipped.ReadFile(path.Join("scenarios", name+".yaml"))
	if err != nil {
		if data, err = config.ReadFile(name); err != nil {
			err = fmt.Errorf("%w; give the path of a YAML file, or one of %s", err, wording.Choice(ScenarioNames()))
			if near := wording.Nearest(name, ScenarioNames()); near != "" {
				err = fmt.Errorf("%w; the nearest is %s", err, near)
			}
		}
	}
	var l config.Layer
	if err == nil {
		l, err = config.ParseYAML("scenario "+name, data)
	}
	if err != nil {
		return l, &PlanError{[]string{fmt.Sprintf("scenario %q: %s", name, err)}}
	}
	return l, nil
}
