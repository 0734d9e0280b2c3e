// Posts files to the server API: publish URL KEY FILE... Prints status and body of each response on one line.
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
		// net/http does not know the length of a file, so it sends the body in chunks.
		request, err := http.NewRequest("POST", url, file)
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("X-API-Key", key)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		fmt.Printf("%d %s\n", response.StatusCode, body)
	}
}
