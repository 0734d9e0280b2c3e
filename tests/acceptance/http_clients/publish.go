// Posts files to the server API: publish URL KEY FILE... Prints each answer's status and body on a line.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	url, key := os.Args[1], os.Args[2]
	for _, name := range os.Args[3:] {
		file, err := os.Open(name)
		if err != nil {
			log.Fatal(err)
		}
		// A file has no length for net/http, so the body is sent in chunks.
		request, err := http.NewRequest("POST", url, file)
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("X-API-Key", key)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		fmt.Printf("%d %s\n", answer.StatusCode, body)
	}
}
