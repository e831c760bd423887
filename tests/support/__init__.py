"""What tests share. Each module opens with what it gives; nothing here knows how the proxy is built."""
