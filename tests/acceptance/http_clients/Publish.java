import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;

/** Posts files to the server API: java Publish.java URL KEY FILE... Prints each answer's status and body on a line. */
public class Publish {
    public static void main(String[] arguments) throws Exception {
        // The default settings prefer HTTP/2, so the first request asks for an upgrade to h2c.
        HttpClient client = HttpClient.newHttpClient();
        for (int at = 2; at < arguments.length; at++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("X-API-Key", arguments[1])
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[at])))
                .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
