// Command generation6 checks a gateway with the habits of the SDKs of generation 6: worker and task
// ports, uniqIds with the address of the task port, Unregister on the registered connection.
package main

import (
	"flag"

	"ringway.test/clients/suite"
)

func main() {
	url := flag.String("ws", "ws://127.0.0.1:6060/netsvr", "client address")
	worker := flag.String("worker", "127.0.0.1:6061", "worker address")
	task := flag.String("task", "127.0.0.1:6062", "task address")
	flag.Parse()
	s := suite.Suite{Generation: 6, URL: *url, WorkerAddr: *worker, TaskAddr: *task}
	s.Run()
}
