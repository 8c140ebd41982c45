// Command generation5 checks a gateway with the habits of the SDKs of generation 5: one port for
// everything, one-way commands on the registered connection, Unregister on another one.
package main

import (
	"flag"

	"ringway.test/clients/suite"
)

func main() {
	url := flag.String("ws", "ws://127.0.0.1:6060/netsvr", "client address")
	worker := flag.String("worker", "127.0.0.1:6061", "worker address")
	flag.Parse()
	s := suite.Suite{Generation: 5, URL: *url, WorkerAddr: *worker, TaskAddr: *worker}
	s.Run()
}
