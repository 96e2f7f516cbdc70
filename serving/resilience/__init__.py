"""What keeps serving up when it is asked for too much or something it needs is away."""
