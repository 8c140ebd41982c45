module ringway.test/clients

go 1.23

require (
	github.com/buexplain/netsvr-protocol-go/v6 v6.0.1
	github.com/gorilla/websocket v1.5.3
	google.golang.org/protobuf v1.36.11
)
