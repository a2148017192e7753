package passbook.client;

import passbook.v1.PostTransactionResponse;

/**
 * The result of one request of {@link PassbookClient#postAll}.
 *
 * @param requestId the id of the request
 * @param response null if there is an error
 * @param error null if there is a response
 */
public record Posted(String requestId, PostTransactionResponse response, PassbookException error) {}
