"""The steps of one answer, each a small module with one public class or function."""
