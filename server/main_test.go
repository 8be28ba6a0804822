package server

import (
	"testing"

	"go.uber.org/goleak"
)

// gnet imports a goroutine pool whose default instance starts these two when
// the program starts; they never end.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}
