import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;

/** Posts files to the server API: java Publish.java URL KEY FILE... Prints status and body of each response. */
public class Publish {
    public static void main(String[] arguments) throws Exception {
        // The default settings prefer HTTP/2, so the first request has an upgrade to h2c.
        HttpClient client = HttpClient.newHttpClient();
        for (int at = 2; at < arguments.length; at++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("X-API-Key", arguments[1])
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[at])))
                .build();
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.body());
        }
    }
}
