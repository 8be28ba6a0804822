package engine

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// echoEnv makes the test binary a server that echoes.
const echoEnv = "LOADTEST_ENGINE_TEST_ECHO"

func TestMain(m *testing.M) {
	if os.Getenv(echoEnv) != "" {
		echoUntilEOF()
		return
	}
	goleak.VerifyTestMain(m)
}
