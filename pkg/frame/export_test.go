package frame

// Details is for the tests.
var Details = details
