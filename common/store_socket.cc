// SPDX-License-Identifier: Apache-2.0
#include "common/store_dialer.h"
#include "common/tls_stream.h"

namespace ckpt {

Result<std::unique_ptr<Stream>> connect_by_socket(const RemoteOptions& options) {
  std::shared_ptr<const TlsCredentials> credentials;
  if (options.tls.is_used()) {
    CKPT_ASSIGN(credentials, TlsCredentials::load(options.tls, TlsSide::kClient));
  }
  CKPT_ASSIGN(UniqueFd socket,
              connect_socket(options.address, options.tls.reach(), options.patience));
  const std::string address = options.address.to_string();
  std::unique_ptr<Stream> stream =
      credentials == nullptr
          ? std::make_unique<SocketStream>(std::move(socket), address, options.patience)
          : std::make_unique<TlsStream>(std::move(socket), address, options.patience, credentials);
  return stream;
}

}  // namespace ckpt
