// @ts-check
/** The errors of the client. */

/**
 * A command failed or its reply is missing. `code` is the server's error code, or 0 without a reply. `temporary`: the
 * same command may succeed later. `uncertain`: the reply is missing, so the server may or may not have executed the
 * command.
 */
export class ClientError extends Error {
  /** @param {number} code @param {string} message @param {{temporary?: boolean, uncertain?: boolean}} [flags] */
  constructor(code, message, { temporary = false, uncertain = false } = {}) {
    super(message);
    this.name = "ClientError";
    this.code = code;
    this.temporary = temporary;
    this.uncertain = uncertain;
  }
}

/** For `getToken` to throw: the user may not connect or subscribe, or not any longer. */
export class UnauthorizedError extends Error {}
