package lab

import "runtime"

// debianArch is the machine's name in Debian's library paths.
var debianArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
