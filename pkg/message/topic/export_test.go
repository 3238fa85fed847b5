package topic

// Details is for the tests.
var Details = details
