module github.com/f2mesh/f2mesh/tools/gotest

go 1.26.0

tool github.com/f2mesh/f2mesh/tools/gotest
