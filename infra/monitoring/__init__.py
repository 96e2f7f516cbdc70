"""Monitoring as code: rules and configuration for Prometheus and Alertmanager, and Grafana's dashboards."""
