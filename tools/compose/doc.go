// Package compose tests compose.yaml, its overrides and the Dockerfile, without an
// engine: what they promise, on the model that Compose itself resolves; that they
// have not drifted from the program; and the whole mesh of compose.yaml, each
// container as a process in namespaces of its own.
package compose
