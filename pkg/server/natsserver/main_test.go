package natsserver_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsservertest.Leftovers()...) }
