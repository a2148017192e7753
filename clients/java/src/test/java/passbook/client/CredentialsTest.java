package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import passbook.v1.CreateAccountRequest;
import passbook.v1.DepositRequest;

/** Tokens, TLS and mutual TLS with a real server. */
@Timeout(30)
@EnabledIfEnvironmentVariable(named = "PASSBOOK_TEST_BIN", matches = ".+")
@EnabledIfEnvironmentVariable(named = "PASSBOOK_TEST_SECRETS", matches = ".+")
class CredentialsTest {
  private static final Path SECRETS =
      Path.of(String.valueOf(System.getenv("PASSBOOK_TEST_SECRETS")));

  private Process server;
  private String address;

  @BeforeEach
  void startServer() throws IOException {
    String settings = SECRETS.resolve("passbook.toml").toString();
    server =
        new ProcessBuilder(
                System.getenv("PASSBOOK_TEST_BIN"), "serve", "--ephemeral", "--config", settings)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    address = addressIn(server.inputReader().readLine());
  }

  private static String addressIn(String line) {
    Matcher address = Pattern.compile("\"address\": ?\"([^\"]+)\"").matcher(line);
    assertTrue(address.find(), line);
    return address.group(1);
  }

  @AfterEach
  void stopServer() {
    server.destroy();
  }

  private static File secret(String name) {
    return SECRETS.resolve(name).toFile();
  }

  private PassbookClient.Builder builder(TlsChannelCredentials.Builder tls) throws IOException {
    return PassbookClient.builder(address)
        .serverName("server.test")
        .tls(tls.trustManager(secret("ca.crt")).build());
  }

  private static void makeDeposit(PassbookClient client) {
    client
        .blocking()
        .createAccount(
            CreateAccountRequest.newBuilder().setAccountId("joint").setCurrencyCode("USD").build());
    client
        .blocking()
        .deposit(
            DepositRequest.newBuilder()
                .setAccountId("joint")
                .setAmount(Amounts.money(new BigDecimal("1.00"), "USD"))
                .build());
  }

  @Test
  void aTokenOrACertificateProvesAnIdentity() throws IOException {
    String token = Files.readString(SECRETS.resolve("token")).strip();
    try (PassbookClient client =
        builder(TlsChannelCredentials.newBuilder()).token(() -> token).build()) {
      makeDeposit(client);
    }
    var mutual =
        TlsChannelCredentials.newBuilder().keyManager(secret("client.crt"), secret("client.key"));
    try (PassbookClient client = builder(mutual).build()) {
      makeDeposit(client);
    }
    try (PassbookClient client = builder(TlsChannelCredentials.newBuilder()).build()) {
      var thrown = assertThrows(StatusRuntimeException.class, () -> makeDeposit(client));
      assertEquals(Code.UNAUTHENTICATED, PassbookException.of(thrown).code());
    }
  }
}
