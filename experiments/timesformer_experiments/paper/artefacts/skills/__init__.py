"""What each attention scheme can and cannot see."""
