package passbook.conformance;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** A process of Passbook, which keeps its address over restarts. */
final class ServerProcess implements AutoCloseable {
  private static final String READY = "ready: listening on ";

  private String address = "127.0.0.1:0";
  private Process process;

  /** Starts a server and waits until it is ready. */
  ServerProcess() throws IOException {
    start();
  }

  String address() {
    return address;
  }

  /** Ends the process without a chance to say anything, and starts another one. */
  void restart() throws IOException {
    close();
    start();
  }

  /** Stops the process until {@link #resume}. */
  void pause() throws IOException {
    signal("STOP");
  }

  void resume() throws IOException {
    signal("CONT");
  }

  @Override
  public void close() throws IOException {
    process.destroyForcibly();
    awaitEnd(process);
  }

  private void start() throws IOException {
    process =
        new ProcessBuilder(System.getenv("PASSBOOK_TEST_BIN"), "serve", "--listen", address)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    // Stays open, since the server writes to it later, too.
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      if (line.startsWith(READY)) {
        address = line.substring(READY.length(), line.indexOf(','));
        return;
      }
    }
    throw new IOException("the server on " + address + " ended before it was ready");
  }

  private void signal(String name) throws IOException {
    awaitEnd(
        new ProcessBuilder("kill", "-" + name, String.valueOf(process.pid())).inheritIO().start());
  }

  private static void awaitEnd(Process process) throws IOException {
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        throw new IOException("the process " + process.pid() + " does not end");
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", e);
    }
  }
}
