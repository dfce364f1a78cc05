package stream

type s2sState struct{}
