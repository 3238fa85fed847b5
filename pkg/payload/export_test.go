package payload

// Details is for the tests.
var Details = details
